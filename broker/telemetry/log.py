"""The log: structlog, one line per event, JSON or pretty; `scrub.py` says what may stand in it.

The standard library's loggers, warnings and crashes take the same way to the same stream. Never raises into
the code that logs, and keeps nothing. A stream that nobody reads makes the writer wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog

from broker.telemetry.redaction import allowed, frames, plain, scrub

# The standard library's loggers that say too much, or repeat what they were given (SQL with its parameters).
QUIET = ("aio_pika", "aiormq", "aiohttp", "alembic", "asyncio", "asyncpg", "sqlalchemy")

# JSON allows these in a string, and what reads the log may take them for the end of a line.
_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Sink:
    """Where the lines go and how they look. Without a stream: standard error, whatever that is just then."""

    def __init__(self, stream: TextIO | None, *, pretty: bool) -> None:
        self._stream = stream
        self._render = _pretty if pretty else _json
        self._lock = threading.Lock()

    def write(self, level: str, logger: str, event: Any, args: Any, facts: Mapping[str, Any]) -> None:
        """One line. Never raises: what cannot be written is lost, the message it is about is not."""
        try:
            line = _line(level, logger, _filled(event, args), facts)
        except Exception as error:
            line = _line("error", logger, "line-lost", {"error": error})
        with contextlib.suppress(Exception):
            # A lone surrogate cannot be encoded, and must not cost the line.
            text = scrub(self._render(line)).encode("utf-8", "backslashreplace").decode()
            stream = self._stream or sys.stderr
            with self._lock:
                stream.write(text + "\n")
                stream.flush()


def _line(level: str, logger: str, event: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"timestamp": stamp, "level": level, "event": event, "logger": logger}
    exc_info = facts.get("exc_info")
    rest = {key: value for key, value in facts.items() if key not in ("exc_info", "stack_info", *line)}
    line |= allowed(rest)
    error = _error_of(exc_info)
    return line | {"exception": frames(error)} if error else line


def _error_of(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if len(exc_info) == 3 else None
    return sys.exc_info()[1] if exc_info else None


def _json(line: dict[str, Any]) -> str:
    # ensure_ascii would hide digits of other scripts from the scrub.
    text = json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=plain)
    return text if text.isascii() else text.translate(_LINE_ENDS)


def _pretty(line: dict[str, Any]) -> str:
    head = f"{line.pop('timestamp')[11:-1]} {line.pop('level'):<8} {_flat(line.pop('event')):<28}"
    exception = line.pop("exception", ())
    line["logger"] = line.pop("logger")
    facts = " ".join(f"{key}={_flat(value)}" for key, value in line.items())
    return "\n    ".join((f"{head} {facts}", *(_flat(frame) for frame in exception)))


def _flat(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _CONTROL.sub(" ", text)


class Logger(structlog.BoundLoggerBase):
    """What `get_logger` gives: an event in constant words, and facts under the keys of ALLOWED."""

    def debug(self, event: Any, *args: Any, **facts: Any) -> None:
        """For a developer who looks for something."""
        self._say("debug", event, args, facts)

    def info(self, event: Any, *args: Any, **facts: Any) -> None:
        """What happened; one line for each message."""
        self._say("info", event, args, facts)

    def warning(self, event: Any, *args: Any, **facts: Any) -> None:
        """Something is not as it should be, and the broker copes."""
        self._say("warning", event, args, facts)

    def error(self, event: Any, *args: Any, **facts: Any) -> None:
        """A person should look."""
        self._say("error", event, args, facts)

    def critical(self, event: Any, *args: Any, **facts: Any) -> None:
        """The process cannot go on."""
        self._say("critical", event, args, facts)

    def exception(self, event: Any, *args: Any, **facts: Any) -> None:
        """As error, with the exception that is being handled."""
        self._say("error", event, args, {"exc_info": True, **facts})

    def _say(self, level: str, event: Any, args: tuple[Any, ...], facts: dict[str, Any]) -> None:
        if _number_of(level) >= _state.level:
            about = structlog.contextvars.get_contextvars() | dict(self._context) | facts
            _state.sink.write(level, self._logger, event, args, about)


def _filled(template: Any, args: Any) -> Any:
    """The template with its arguments, each made safe first; the bare template if they do not fit."""
    if not args:
        return plain(template)
    safe = {k: plain(v) for k, v in args.items()} if isinstance(args, Mapping) else tuple(map(plain, args))
    try:
        return plain(str(template) % safe)
    except (TypeError, ValueError, KeyError):
        return plain(template)


class _FromStandardLibrary(logging.Handler):
    """Takes the records of the standard library's loggers the same way, first line of the text only."""

    def emit(self, record: logging.LogRecord) -> None:
        msg = record.msg.split("\n", 1)[0] if isinstance(record.msg, str) and not record.args else record.msg
        level = record.levelname.lower()
        _state.sink.write(level, record.name, msg, record.args, {"exc_info": record.exc_info})


class _State:
    """The one sink and level of this process; `configure` replaces them."""

    def __init__(self) -> None:
        self.sink = Sink(None, pretty=False)
        self.level = logging.INFO


_state = _State()


def get_logger(name: str) -> Logger:
    """The logger of one module; `bind` gives one with facts in it, structlog's contextvars are added."""
    logger: Logger = structlog.get_logger(name)
    return logger


def configure(
    format: Literal["auto", "json", "pretty"] = "auto", level: str = "info", stream: TextIO | None = None
) -> None:
    """Sets how and where this process logs, for structlog, the standard library, warnings and crashes."""
    at_terminal = (stream or sys.stderr).isatty()
    _state.sink = Sink(stream, pretty=format == "pretty" or (format == "auto" and at_terminal))
    _state.level = _number_of(level)
    root = logging.getLogger()
    root.handlers[:] = [_FromStandardLibrary()]
    root.setLevel(_state.level)
    logging.getLogger("opentelemetry").setLevel(
        logging.CRITICAL + 1
    )  # a line for each lost span; ours says it once
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, _state.level))
    logging.captureWarnings(True)
    _watch_crashes()


def _number_of(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _name(*names: str) -> str:
    return names[0] if names else "broker"


def _watch_crashes() -> None:
    sys.excepthook = _crashed
    threading.excepthook = lambda hook: _say_crash("thread-crashed", hook.exc_value)
    sys.unraisablehook = lambda hook: _say_crash("ignored-exception", hook.exc_value)
    with contextlib.suppress(RuntimeError):
        watch(asyncio.get_running_loop())


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Makes `loop` log what its tasks and callbacks leave unhandled the same way, without their contents."""
    loop.set_exception_handler(_loop_says)


def _loop_says(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    message = str(context.get("message", "")).split("\n", 1)[0]
    _say_crash("loop-error", context.get("exception"), what=message)


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    _say_crash("crashed", error.with_traceback(trace), level="critical")


def _say_crash(event: str, error: BaseException | None, *, level: str = "error", **facts: Any) -> None:
    _state.sink.write(level, "broker", event, (), {"exc_info": error, **facts})


# At import, because structlog's own defaults would print whatever they are given if `configure` is forgotten.
structlog.configure(processors=[], wrapper_class=Logger, logger_factory=_name, cache_logger_on_first_use=True)
