"""Keeps personal data out of the log (docs/privacy.md#logs): processors for the chain in log.py, and their parts.

An allow-list of keys; values of known types only; exceptions by type and place, without their text (except the
broker's own errors, whose texts are safe) and without local variables; a scrub by pattern for all free text. Pure.
"""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Iterator, Mapping, MutableMapping
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from traceback import walk_tb
from typing import Any
from uuid import UUID

from broker.errors import BrokerError

ALLOWED = frozenset(
    " ".join(
        (
            # the line itself
            "event level timestamp logger dropped exception error",
            # the message and its outcome
            "request_id report_id letter_id replay_id type status outcome reason cause error_code fault",
            "fields attempt tries traceparent",
            # the external system, and the result of the call
            "jobcenter planner booking_system system supplier step what http_status probe milliseconds seconds",
            # RabbitMQ
            "queue exchange routing_key answer acked redelivered delivery_count prefetch",
            "connection channel consumers",
            # the ledger, ownership, processes
            "owner epoch taken_over dead_owners key_id due state rows revision",
            "sqlstate pid worker workers code signal",
            # counts and limits
            "count size bytes left limit age lag running waiting in_flight",
            "expected alive connected ready since pause",
            # this process
            "version host port file directory jobcenters systems path command problem problems",
            # the console: an operator's own name, never a citizen's
            "actor",
        )
    ).split()
)
"""The keys that a line may have. Other keys are dropped and counted: even the name of a key may be personal."""

LONGEST_TEXT = 500
LONGEST_LIST = 50
DEEPEST = 3
MOST_FRAMES = 30
MOST_CHAINED = 8

MASK = "**********"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_HEX_ID = r"(?=[0-9]*[a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}|[0-9a-f]{16})"
_BETWEEN = r"(?:[\s\-\u2010-\u2015\u2212\u00ad._/+]{1,3}|%20|%2[dD]|\\u00[aA]0|\\t|\\n)?"
# Ids come first, so that an id is kept whole. A CPR number is six digits or more, perhaps a separator, and four digits
# or more. No word boundary is required, because the number may stand next to letters. Neither the date nor modulus 11
# is checked (newer numbers do not satisfy it); a false match costs a few masked digits.
_PERSONAL = re.compile(
    rf"(?<![0-9a-z])(?P<id>{_UUID}|{_HEX_ID})(?![0-9a-z])|\d{{6,}}{_BETWEEN}\d{{4,}}",
    re.IGNORECASE,
)
_SIX_DIGITS = re.compile(r"\d{6}")
_PASSWORD = re.compile(r"(://[^\s/:@]*:)[^\s/]*@")

Line = MutableMapping[str, Any]


# -- processors --------------------------------------------------------------------------------------------------


def fill_event(_logger: object, _level: str, line: Line) -> Line:
    """The event's text with its `%` arguments, each made safe first; the text alone if they do not fit."""
    args = line.pop("positional_args", None)
    if args:
        line["event"] = _filled(line["event"], args)
    return line


def only_allowed(_logger: object, _level: str, line: Line) -> Line:
    """The facts that may be written. `exc_info` is passed on as it is; the chain replaces it later."""
    exc_info = line.pop("exc_info", None)
    line.pop("stack_info", None)
    kept = allowed(line)
    if exc_info is not None:
        kept["exc_info"] = exc_info
    return kept


def scrub_line(_logger: object, _level: str, text: str) -> str:
    """The finished line, scrubbed once more, in a form that every stream can encode."""
    # A lone surrogate cannot be encoded; it must not cost the line.
    return scrub(text).encode("utf-8", "backslashreplace").decode()


def _filled(template: Any, args: Any) -> Any:
    safe = {k: plain(v) for k, v in args.items()} if isinstance(args, Mapping) else tuple(map(plain, args))
    try:
        return plain(str(template) % safe)
    except (TypeError, ValueError, KeyError):
        return plain(template)


# -- their parts -------------------------------------------------------------------------------------------------


def scrub(text: str) -> str:
    """`text` with CPR numbers (by their pattern), passwords in URLs and pydantic's input values masked."""
    if "://" in text:
        text = _PASSWORD.sub(rf"\1{MASK}@", text)
    if "input_value=" in text:
        text = re.sub(r"input_value=.*?(?=, input_type=|\]|$)", f"input_value={MASK}", text, flags=re.DOTALL)
    if not _SIX_DIGITS.search(text):
        return text
    return _PERSONAL.sub(lambda found: found[0] if found["id"] else MASK, text)


def plain(value: Any, depth: int = 0) -> Any:
    """`value` in a form that may be written: known types scrubbed and shortened, others as the name of their type."""
    match value:
        case None | bool():
            return value
        case Enum():
            return plain(value.value, depth)
        case str():
            return _short(value)
        case int() | float():
            return _number(value)
        case UUID() | Path() | datetime() | date():
            return _short(str(value))
        case BaseException():
            return _summary(value)
        case Mapping() if depth < DEEPEST:
            return allowed(value, depth + 1)
        case list() | tuple() | set() | frozenset() if depth < DEEPEST:
            return [plain(item, depth + 1) for item in list(value)[:LONGEST_LIST]]
    return f"<{type(value).__qualname__}>"


def _number(value: float) -> Any:
    if not math.isfinite(value):
        return str(value)
    value = round(value, 3) if isinstance(value, float) else value
    # A CPR number without its leading zero has nine digits; no count in this product gets that large.
    return MASK if abs(value) >= 10**8 else value


def _short(text: str) -> str:
    text = scrub(text)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


def allowed(facts: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """The facts whose key is in ALLOWED, each made plain, and the number of the others as `dropped`."""
    kept = {key: plain(value, depth) for key, value in facts.items() if key in ALLOWED}
    if len(kept) < len(facts):
        kept["dropped"] = len(facts) - len(kept)
    return kept


def _summary(error: BaseException) -> str:
    """The type of an exception, with its text, errno or SQLSTATE where that is safe."""
    name = type(error).__qualname__
    if isinstance(error, BrokerError):
        return f"{name}: {_short(str(error))}"
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno in errno.errorcode:
        return f"{name}: {errno.errorcode[error.errno]}"
    state = getattr(error, "sqlstate", None)
    return f"{name}: {state}" if isinstance(state, str) and re.fullmatch("[0-9A-Z]{5}", state) else name


def frames(error: BaseException) -> list[str]:
    """An exception with its causes, cause first: types and places only, innermost frame last."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and len(chain) < MOST_CHAINED and not any(link is current for link in chain):
        chain.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return [line for link in reversed(chain) for line in _frames_of(link)]


def _frames_of(error: BaseException) -> Iterator[str]:
    places = [
        f"  {_place(f.f_code.co_filename)}:{n} {f.f_code.co_name}" for f, n in walk_tb(error.__traceback__)
    ]
    yield _summary(error)
    yield from places[-MOST_FRAMES:]
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions[:MOST_CHAINED]:
            yield from (f"  | {text}" for text in _frames_of(inner))


def _place(file: str) -> str:
    return "/".join(Path(file).parts[-2:])
