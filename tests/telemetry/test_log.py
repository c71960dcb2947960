"""The log: what may be in a line, and that a marked number never is, wherever it is put."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as some
from pydantic import BaseModel, ValidationError

from broker.errors import CallFacts, Failure
from broker.telemetry import log as broker_log
from broker.telemetry.log import configure, get_logger
from broker.telemetry.redaction import ALLOWED, LONGEST_TEXT, scrub

# Numbers that no person has: born in the 2030s.
MARKED = "0101364001"
FORMS = (MARKED, "010136-4001", "010136 4001", "010136\u20134001", "010136\u00a04001", "010136%204001")
SHAPES = ("0101364001", "010136-4001", "010136 4001", "1364001", "364001")
REQUEST = UUID("7b0d2f5e-1234-4abc-9def-123456789012")
log = get_logger("tests.log")


class Lines:
    """What was written, and the same as dictionaries."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def last(self) -> dict[str, Any]:
        return self.all[-1]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Puts back what `configure` sets for the whole process."""
    root, state = logging.getLogger(), broker_log._state
    kept = (root.handlers[:], root.level, state.sink, state.level, sys.excepthook, sys.unraisablehook)
    yield
    root.handlers[:], root.level, state.sink, state.level, sys.excepthook, sys.unraisablehook = kept
    logging.captureWarnings(False)
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def lines() -> Lines:
    lines = Lines()
    configure("json", "debug", lines.stream)
    return lines


def assert_clean(text: str) -> None:
    assert text
    for shape in SHAPES:
        assert shape not in text


def test_a_line_has_its_time_level_event_and_facts(lines: Lines) -> None:
    log.bind(type="booking.book.v1").info("carried", request_id=REQUEST, milliseconds=12.34567, acked=True)
    line = lines.last
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo == UTC
    assert line == {
        "level": "info",
        "event": "carried",
        "logger": "tests.log",
        "type": "booking.book.v1",
        "request_id": str(REQUEST),
        "milliseconds": 12.346,
        "acked": True,
    }


def test_a_key_that_is_not_in_the_list_is_dropped_and_counted(lines: Lines) -> None:
    log.info("carried", **{"navn": "Signe", "cpr": MARKED, MARKED: 1}, what={"cpr": MARKED, "step": "create"})
    assert lines.last["dropped"] == 3
    assert lines.last["what"] == {"step": "create", "dropped": 1}
    assert "Signe" not in lines.text
    assert_clean(lines.text)


def test_the_callers_of_the_broker_use_keys_of_the_list_only() -> None:
    used = set()
    for file in Path(broker_log.__file__).parents[1].rglob("*.py"):
        for call in _log_calls(file):
            used |= {word.arg for word in call.keywords if word.arg} - {"exc_info"}
    assert used <= ALLOWED, used - ALLOWED


def _log_calls(file: Path) -> Iterator[Any]:
    import ast

    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            if isinstance(of, ast.Name) and of.id == "log" and node.func.attr in dir(broker_log.Logger):
                yield node


class Stranger:
    """Something whose text is not known to be safe."""

    def __repr__(self) -> str:
        return f"Stranger({MARKED}, Signe)"


class Person(BaseModel):
    number: int


def _raise(text: str) -> None:
    local = text
    try:
        raise KeyError(local)
    except KeyError as error:
        raise ValueError(f"no such citizen: {local}, Signe") from error


def _say_in_exception(text: str) -> None:
    try:
        _raise(text)
    except ValueError:
        log.exception("failed")


def _say_in_names(text: str) -> None:
    error = type(f"Missing {text}", (ValueError,), {})()
    get_logger(f"about.{text}").error("failed", exc_info=error)
    logging.getLogger(f"about.{text}").error("failed")


def _say_in_group(text: str) -> None:
    try:
        raise ExceptionGroup(text, [ValueError(text), OSError(text)])
    except ExceptionGroup as group:
        group.add_note(text)
        log.error("failed", exc_info=group)


def _say_validation(text: str) -> None:
    try:
        Person.model_validate({"number": f"Signe {text}"})
    except ValidationError as error:
        log.exception("invalid", error=error)
        log.error("invalid %s", error)
        log.error(error)
        log.error(str(error), reason=str(error))
        logging.getLogger("pydantic").error("invalid: %s", error)


def _say_by_standard_library(text: str) -> None:
    other = logging.getLogger("aiohttp.server")
    other.error("%s and %r", text, ValueError(text))
    other.error("%(cpr)s", {"cpr": text})
    other.error(f"asked for {text}\nsecond line: Signe")
    other.error("%d", text)
    other.error(Stranger())
    try:
        _raise(text)
    except ValueError:
        other.exception("failed", stack_info=True)


def _say_by_warning(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn(f"odd: {text}", stacklevel=1)


def _say_by_contextvars(text: str) -> None:
    with structlog.contextvars.bound_contextvars(what=text, navn="Signe"):
        structlog.get_logger("x").bind(reason=text).info("carried")


PLACES: dict[str, Callable[[str], None]] = {
    "the event": lambda text: log.info(f"for {text}"),
    "glued to words": lambda text: log.info(f"cpr{text}x and x_{text}_y", what=f"9{text}9"),
    "an argument": lambda text: log.info("for %s and %s", text, Stranger()),
    "a value": lambda text: log.info("carried", what=text, reason=f"x={text};"),
    "a number": lambda text: log.info("carried", count=int(text[:6] + text[-4:]), size=3112364001),
    "bytes": lambda text: log.info("carried", what=text.encode(), reason=str(text.encode())),
    "lists and tables": lambda text: log.info("carried", fields=[text, [text, {text: 1, "what": [text]}]]),
    "a stranger": lambda text: log.info("carried", what=Stranger(), fields=[Stranger()]),
    "a stranger as event": lambda text: log.info(Stranger()),
    "a model": lambda text: log.info("carried", what=Person(number=int(text[:6] + text[-4:]))),
    "an address": lambda text: log.info("carried", path=f"https://plan.example/{text}?cpr={text}&a=b"),
    "a long text": lambda text: log.info("carried", what="x" * (LONGEST_TEXT - 5) + text),
    "a key": lambda text: log.info("carried", **{text: 1}),
    "an exception as a fact": lambda text: log.info("carried", error=ValueError(text), what=OSError(5, text)),
    "an exception and its causes": _say_in_exception,
    "names of loggers and types": _say_in_names,
    "a group of exceptions": _say_in_group,
    "a validation error": _say_validation,
    "the standard library": _say_by_standard_library,
    "a warning": _say_by_warning,
    "bound facts": _say_by_contextvars,
}  # fmt: skip


@pytest.mark.parametrize("form", range(len(FORMS)), ids=lambda n: f"form {n}")
@pytest.mark.parametrize("look", ["json", "pretty"])
@pytest.mark.parametrize("place", PLACES)
def test_a_marked_number_is_in_no_line(place: str, look: Any, form: int) -> None:
    lines = Lines()
    configure(look, "debug", lines.stream)
    PLACES[place](FORMS[form])
    assert_clean(lines.text)
    assert FORMS[form] not in lines.text
    assert "Signe" not in lines.text


def test_an_exception_is_told_by_type_and_place_cause_first(lines: Lines) -> None:
    _say_in_exception(MARKED)
    told = lines.last["exception"]
    assert [line for line in told if not line.startswith(" ")] == ["KeyError", "ValueError"]
    assert any(line.startswith("  telemetry/test_log.py:") and line.endswith(" _raise") for line in told)


def test_the_text_of_our_own_errors_is_kept(lines: Lines) -> None:
    error = Failure(CallFacts("nord", "create", "timeout", milliseconds=8000))
    log.error("failed", exc_info=error, reason=error)
    assert lines.last["exception"] == ["Failure: create at nord: timeout after 8000 ms"]
    assert lines.last["reason"] == "Failure: create at nord: timeout after 8000 ms"


def test_an_operating_system_error_is_told_by_its_name(lines: Lines) -> None:
    log.error("failed", reason=ConnectionRefusedError(111, f"to {MARKED}"))
    assert lines.last["reason"] == "ConnectionRefusedError: ECONNREFUSED"


def test_the_password_of_an_address_is_masked(lines: Lines) -> None:
    logging.getLogger("aio_pika").warning("to %s", "amqp://jobnet:hem@meligt@mq.example:5672/v")
    log.info("to postgresql://jobnet:hemmeligt@pg.example/ledger")
    assert "meligt" not in lines.text
    assert [line["event"] for line in lines.all] == [
        "to amqp://jobnet:**********@mq.example:5672/v",
        "to postgresql://jobnet:**********@pg.example/ledger",
    ]


@pytest.mark.parametrize(
    "text",
    [
        str(REQUEST),
        "00000000-0000-4000-8000-000000000001",
        str(REQUEST).upper(),
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "2026-11-23T17:24:00.123Z",
        "2026-11-23 17:24:00+01:00",
        "127.0.0.1:54321",
        "90101 jobnet.bookings booking.book.v1 12.346 ms",
        "amq.gen-JzTY20BRgKO-HjmUJj0wLg",
        "invitation " + str(UUID(int=123456789)),
    ],
)
def test_ids_times_and_ports_are_left_alone(text: str) -> None:
    assert scrub(text) == text


@given(id=some.uuids())
def test_no_request_id_is_harmed(id: UUID) -> None:
    line = f'{{"request_id":"{id}","what":"a {id} b"}}'
    assert scrub(line) == line


@given(
    before=some.text(some.characters(exclude_categories=["Cs", "Nd"]), max_size=10),
    number=some.from_regex(r"(0[1-9]|[12][0-9])(0[1-9]|1[0-2])3[0-6]4[0-9]{3}", fullmatch=True),
    between=some.sampled_from(["", " ", "-", " - "]),
    after=some.text(some.characters(exclude_categories=["Cs"]), max_size=10),
)
def test_no_shape_of_a_number_survives_in_any_text(
    before: str, number: str, between: str, after: str
) -> None:
    written = f"{number[:6]}{between}{number[6:]}"
    assert written not in scrub(f"{before}{written}{after}")


def test_one_event_is_one_line_of_json_whatever_is_in_it(lines: Lines) -> None:
    log.info("a\nb", what="c\r\n\u2028d", reason="\ud800", count=float("nan"))
    assert len(lines.text.strip("\n").split("\n")) == 1
    assert lines.last["count"] == "nan"


def test_a_pretty_line_cannot_be_broken_or_coloured_by_its_content() -> None:
    lines = Lines()
    configure("pretty", "info", lines.stream)
    log.info("a\nb", what="c\r\n\x1b[31md", reason="\u2028e")
    assert lines.text.count("\n") == 1
    assert "\x1b" not in lines.text


def test_debug_is_silent_at_info_and_loud_libraries_at_any_level(lines: Lines) -> None:
    logging.getLogger("sqlalchemy.engine").info("INSERT %s", MARKED)
    log.debug("seen")
    assert len(lines.all) == 1
    configure("json", "info", lines.stream)
    log.debug("unseen")
    logging.getLogger("x").debug("unseen")
    assert len(lines.all) == 1


def test_auto_is_json_where_no_terminal_is() -> None:
    lines = Lines()
    configure("auto", "info", lines.stream)
    log.info("started")
    assert lines.last["event"] == "started"


class Broken(io.StringIO):
    """A stream that is gone."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError


class Hostile(dict[str, Any]):
    """A table that cannot even be looked at."""

    def items(self) -> Any:
        raise RuntimeError(MARKED)


def test_logging_never_raises_into_the_code_that_logs(lines: Lines) -> None:
    configure("json", "info", lines.stream)  # again, for pytest's own handler does raise
    log.info("carried", what=Hostile(a=1))
    log.info("%d %s", "x")
    logging.getLogger("x").error("%d", Hostile(a=1))
    configure("json", "info", Broken())
    log.info("carried")
    assert [line["event"] for line in lines.all] == ["line-lost", "%d %s", "line-lost"]


async def test_what_a_task_leaves_unhandled_is_told_without_its_content(lines: Lines) -> None:
    loop = asyncio.get_running_loop()
    broker_log.watch(loop)
    try:
        loop.call_exception_handler(
            {"message": f"Task exception was never retrieved\n{MARKED}", "exception": ValueError(MARKED)}
        )
    finally:
        loop.set_exception_handler(None)
    assert lines.last["what"] == "Task exception was never retrieved"
    assert lines.last["exception"] == ["ValueError"]
    assert_clean(lines.text)


CRASH = f"""
import asyncio, gc, threading, warnings
from broker.telemetry.log import configure, get_logger
configure("json")
class Odd:
    def __del__(self):
        raise ValueError("{MARKED}")
odd = Odd()
del odd
def work(number):
    raise ValueError(number)
thread = threading.Thread(target=work, args=("{MARKED}",))
thread.start()
thread.join()
warnings.warn("odd: {MARKED}")
async def main():
    asyncio.get_running_loop().set_exception_handler(None)
    configure("json")
    async def forgotten():
        raise ValueError("{MARKED}")
    task = asyncio.create_task(forgotten())
    await asyncio.sleep(0.01)
    del task
    gc.collect()
asyncio.run(main())
async def crash():
    cpr = "{MARKED}"
    raise KeyError(cpr)
asyncio.run(crash())
"""


@pytest.mark.integration
def test_a_process_that_crashes_in_every_way_prints_no_marked_number() -> None:
    # The number stands in the program itself: read from standard input, no traceback can quote it.
    done = subprocess.run(
        [sys.executable, "-"], input=CRASH, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert_clean(done.stderr)
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert events[:2] == ["ignored-exception", "thread-crashed"]
    assert events[2].startswith("<stdin>:")
    assert events[3:] == ["loop-error", "crashed"]


FORGOTTEN = f"""
import structlog, broker.telemetry.log
structlog.get_logger("x").info("for {MARKED}", cpr="{MARKED}")
"""


@pytest.mark.integration
def test_a_process_that_forgets_to_configure_is_no_less_careful() -> None:
    done = subprocess.run(
        [sys.executable, "-"], input=FORGOTTEN, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == ""
    assert_clean(done.stderr)
