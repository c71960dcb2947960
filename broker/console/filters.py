"""Converts between a dead-letter filter and the fields of a form or an address. Times in fields are Danish time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

from broker.console.view import DANISH
from broker.ops import Filter, Refusal

MOST_IDS = 1000
MOST_TEXT = 200


def _text(text: str) -> str:
    if len(text) > MOST_TEXT or "\x00" in text:
        raise ValueError
    return text


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=DANISH)


def _ids(text: str) -> tuple[UUID, ...]:
    ids = tuple(UUID(part) for part in text.replace(",", " ").split())
    if not 0 < len(ids) <= MOST_IDS:
        raise ValueError
    return ids


def _code(text: str) -> int:
    if len(text) != 1:
        raise ValueError
    return int(text)


PARSERS: dict[str, Callable[[str], Any]] = {
    "error_code": _code,
    "before": _time,
    "after": _time,
    "about": UUID,
    "ids": _ids,
}
NAMES = tuple(f.name for f in fields(Filter))


def filter_of(given: Mapping[str, str]) -> Filter:
    """The filter for these fields. Empty fields and unknown names are ignored. Raises Refusal."""
    values: dict[str, Any] = {}
    for name in NAMES:
        if text := given.get(name, "").strip():
            try:
                values[name] = PARSERS.get(name, _text)(text)
            except ValueError:
                raise Refusal(f"the field {name} cannot be read") from None
    return Filter(**values)


def fields_of(wanted: Filter) -> dict[str, str]:
    """The fields for this filter, the inverse of `filter_of`; for links and hidden inputs."""
    found = {}
    for name in NAMES:
        value = getattr(wanted, name)
        if value is not None:
            found[name] = _field_text(value)
    return found


def _field_text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(str(item) for item in value)
    return value.isoformat() if isinstance(value, datetime) else str(value)
