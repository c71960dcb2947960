"""Reads a JSON object strictly: UTF-8 only (a BOM is skipped), no repeated names, no NaN, no deep nesting, no U+0000.

Every problem is an InvalidMessage that repeats nothing of the body. The decoders' own exceptions hold the whole body,
so InvalidMessage is raised outside their `except` blocks and never chained to them.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Container
from typing import Any, Final, NoReturn
from uuid import UUID

from schemas.fields import readable_guid
from schemas.wire import InvalidMessage

DEEPEST: Final = 32
"""Levels of nested objects and lists; the message's own object is the first."""

BODY: Final = "body"
"""The field name of a problem outside the known fields. An unknown field's name is not repeated: it may be personal."""

_TOO_DEEP: Final = f"must not be nested deeper than {DEEPEST} levels"
_UNCLEAN: Final = re.compile("[\x00\ud800-\udfff]")


class _Repeated(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__("repeated")
        self.name = name


class _NotANumber(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Repeated(_first_repeated(pairs))
    return found


def _first_repeated(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    return next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _constant(_: str) -> NoReturn:
    raise _NotANumber


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def parse_object(body: bytes, known: Container[str], *, max_bytes: int | None = None) -> dict[str, Any]:
    """The JSON object in `body`. Raises InvalidMessage, which names only fields in `known`."""
    text = _decode(body, max_bytes)
    value = _parse(text, known)
    if not isinstance(value, dict):
        raise InvalidMessage.about(BODY, "must be a JSON object")
    found = _faults(value, text, known)
    if found is not None:
        raise InvalidMessage(*found.problems, request_id=readable_guid(value.get("requestId")))
    return value


def _decode(body: bytes, max_bytes: int | None) -> str:
    if max_bytes is not None and len(body) > max_bytes:
        raise InvalidMessage.about(BODY, f"must not be larger than {max_bytes} bytes")
    if body in (b"", codecs.BOM_UTF8):
        raise InvalidMessage.about(BODY, "is empty")
    bom = len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0
    try:
        return body[bom:].decode("utf-8")
    except UnicodeDecodeError as error:
        at = bom + error.start
    raise InvalidMessage.about(BODY, f"must be UTF-8 (byte {at} is not)")


def _parse(text: str, known: Container[str]) -> object:
    request_id: UUID | None = None
    field = BODY
    try:
        return _DECODER.decode(text)
    except _Repeated as error:
        field, problem = _repeated(error.name, known)
        request_id = None if field == "requestId" else _salvage(text)
    except _NotANumber:
        problem = "must not hold NaN or Infinity"
        request_id = _salvage(text)
    except json.JSONDecodeError as error:
        problem = f"is not JSON (line {error.lineno}, column {error.colno})"
    except RecursionError:
        problem = _TOO_DEEP
    except ValueError:
        problem = "must not hold a number of thousands of digits"
    found = InvalidMessage.about(field, problem)
    found.request_id = request_id
    raise found


def _repeated(name: str, known: Container[str]) -> tuple[str, str]:
    if name in known:
        return name, "must not be given twice"
    return BODY, "must not hold the same field twice"


def _salvage(text: str) -> UUID | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return readable_guid(value.get("requestId")) if isinstance(value, dict) else None


def _faults(value: dict[str, Any], text: str, known: Container[str]) -> InvalidMessage | None:
    nested = any(isinstance(each, dict | list) for each in value.values())
    if nested and _deeper_than(value, DEEPEST):
        return InvalidMessage.about(BODY, _TOO_DEEP)
    # UTF-8 and the JSON grammar keep these characters out, except as an escape.
    if "\\u" not in text:
        return None
    for name, each in value.items():
        if _unclean(name) or _unclean(each):
            return InvalidMessage.about(
                name if name in known else BODY, "must not hold U+0000 or half a surrogate pair"
            )
    return None


def _children(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _deeper_than(value: object, limit: int) -> bool:
    level: list[Any] = [value]
    for _ in range(limit):
        level = [child for each in level if isinstance(each, dict | list) for child in _children(each)]
        if not any(isinstance(each, dict | list) for each in level):
            return False
    return True


def _unclean(value: object) -> bool:
    waiting: list[Any] = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            if _UNCLEAN.search(each):
                return True
        elif isinstance(each, dict):
            waiting.extend(each.keys())
        waiting.extend(_children(each))
    return False
