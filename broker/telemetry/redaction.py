"""What may be written into the log, and what is left of the rest (DESIGN 9).

Facts by an allow-list of keys, values by known kinds, exceptions by type and place but never by their text
(our own errors' texts are safe) or with locals; a scrub by shape for all free text. Pure; `log.py` writes.
"""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from traceback import walk_tb
from typing import Any
from uuid import UUID

from broker.errors import BrokerError

ALLOWED = frozenset(
    [
        # what a line is
        *("event", "level", "timestamp", "logger", "dropped", "exception", "error"),
        # which message, and what became of it
        *(
            "request_id",
            "report_id",
            "letter_id",
            "replay_id",
            "type",
            "status",
            "outcome",
            "reason",
            "cause",
            "error_code",
            "fault",
        ),
        *("fields", "attempt", "tries", "traceparent"),
        # where it went, and what was met there
        *(
            "jobcenter",
            "planner",
            "booking_system",
            "system",
            "supplier",
            "step",
            "what",
            "http_status",
            "probe",
        ),
        *("milliseconds", "seconds"),
        # RabbitMQ
        *("queue", "exchange", "routing_key", "answer", "acked", "redelivered", "delivery_count", "prefetch"),
        *("connection", "channel", "consumers"),
        # the ledger, ownership, processes
        *("owner", "epoch", "taken_over", "dead_owners", "key_id", "due", "state", "rows", "revision"),
        *("sqlstate", "pid", "worker", "workers", "code", "signal"),
        # counts and limits
        *("count", "size", "bytes", "left", "limit", "age", "lag", "running", "waiting", "in_flight"),
        *("expected", "alive", "connected", "ready", "since", "pause"),
        # the process itself
        *("version", "host", "port", "file", "directory", "jobcenters", "systems", "path", "command"),
        *("problem", "problems"),
        # the console: an operator's own name, never a citizen's
        "actor",
    ]
)
"""The keys that a line may have. Any other is dropped and counted: even its name may be personal."""

LONGEST_TEXT = 500
LONGEST_LIST = 50
DEEPEST = 3
MOST_FRAMES = 30
MOST_CHAINED = 8

MASK = "**********"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_HEX_ID = r"(?=[0-9]*[a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}|[0-9a-f]{16})"
_BETWEEN = r"(?:[\s\-\u2010-\u2015\u2212\u00ad._/+]{1,3}|%20|%2[dD]|\\u00[aA]0|\\t|\\n)?"
# Ids come first, so that what is kept is kept whole; then six digits or more, perhaps a separator, and four
# or more. No border is asked for: the number may be glued to a word. No check of days, nor of modulus 11,
# which newer numbers do not have; a false alarm costs a few masked digits.
_PERSONAL = re.compile(
    rf"(?<![0-9a-z])(?P<id>{_UUID}|{_HEX_ID})(?![0-9a-z])|\d{{6,}}{_BETWEEN}\d{{4,}}",
    re.IGNORECASE,
)
_SIX_DIGITS = re.compile(r"\d{6}")
_PASSWORD = re.compile(r"(://[^\s/:@]*:)[^\s/]*@")


def scrub(text: str) -> str:
    """`text` without what has the shape of a CPR number, without URL passwords, without pydantic's input."""
    if "://" in text:
        text = _PASSWORD.sub(rf"\1{MASK}@", text)
    if "input_value=" in text:
        text = re.sub(r"input_value=.*?(?=, input_type=|\]|$)", f"input_value={MASK}", text, flags=re.DOTALL)
    if not _SIX_DIGITS.search(text):
        return text
    return _PERSONAL.sub(lambda found: found[0] if found["id"] else MASK, text)


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as something that may be written: known kinds as they are, all else as the name of its type."""
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
            return _told(value)
        case Mapping() if depth < DEEPEST:
            return allowed(value, depth + 1)
        case list() | tuple() | set() | frozenset() if depth < DEEPEST:
            return [plain(item, depth + 1) for item in list(value)[:LONGEST_LIST]]
    return f"<{type(value).__qualname__}>"


def _number(value: float) -> Any:
    if not math.isfinite(value):
        return str(value)
    value = round(value, 3) if isinstance(value, float) else value
    # A CPR number that lost its leading zero has nine digits: no count of ours comes near.
    return MASK if abs(value) >= 10**8 else value


def _short(text: str) -> str:
    text = scrub(text)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


def allowed(facts: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """`facts` under the keys of ALLOWED, each made plain; the others are counted."""
    kept = {key: plain(value, depth) for key, value in facts.items() if key in ALLOWED}
    if len(kept) < len(facts):
        kept["dropped"] = len(facts) - len(kept)
    return kept


def _told(error: BaseException) -> str:
    """An exception in a few words: its type, and what is safe of its text."""
    name = type(error).__qualname__
    if isinstance(error, BrokerError):
        return f"{name}: {_short(str(error))}"
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno in errno.errorcode:
        return f"{name}: {errno.errorcode[error.errno]}"
    state = getattr(error, "sqlstate", None)
    return f"{name}: {state}" if isinstance(state, str) and re.fullmatch("[0-9A-Z]{5}", state) else name


def frames(error: BaseException) -> list[str]:
    """An exception and what led to it: types and places only, innermost last, the cause first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and len(chain) < MOST_CHAINED and not any(e is current for e in chain):
        chain.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return [line for link in reversed(chain) for line in _one(link)]


def _one(error: BaseException) -> Iterator[str]:
    places = [
        f"  {_place(f.f_code.co_filename)}:{n} {f.f_code.co_name}" for f, n in walk_tb(error.__traceback__)
    ]
    yield _told(error)
    yield from places[-MOST_FRAMES:]
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions[:MOST_CHAINED]:
            yield from (f"  | {text}" for text in _one(inner))


def _place(file: str) -> str:
    return "/".join(Path(file).parts[-2:])
