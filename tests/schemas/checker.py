"""A JSON Schema checker for the keywords of 2020-12 that these schemas use; another keyword is an error."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "null": lambda value: value is None,
}
_FORMATS: Final[dict[str, Callable[[str], object]]] = {"uuid": UUID, "date-time": datetime.fromisoformat}
_SAYS_NOTHING: Final = {"$defs", "$id", "$schema", "title", "description", "default", "properties"}
_KEYWORDS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "type": lambda wanted, value: _TYPES[wanted](value),
    "enum": lambda wanted, value: value in wanted,
    "const": lambda wanted, value: value == wanted,
    "pattern": lambda wanted, value: not isinstance(value, str) or bool(re.search(wanted, value)),
    "format": lambda wanted, value: not isinstance(value, str) or _is(wanted, value),
    "minLength": lambda wanted, value: not isinstance(value, str) or len(value) >= wanted,
    "maxLength": lambda wanted, value: not isinstance(value, str) or len(value) <= wanted,
    "minItems": lambda wanted, value: not isinstance(value, list) or len(value) >= wanted,
    "maxItems": lambda wanted, value: not isinstance(value, list) or len(value) <= wanted,
    "minimum": lambda wanted, value: not isinstance(value, int) or value >= wanted,
    "required": lambda wanted, value: not isinstance(value, dict) or set(wanted) <= set(value),
}


def _is(wanted: str, text: str) -> bool:
    try:
        return bool(_FORMATS[wanted](text))
    except ValueError:
        return False


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any] | None = None) -> bool:
    """Whether `value` is an instance of `schema`."""
    root = root or schema
    return all(_holds(keyword, wanted, value, root) for keyword, wanted in schema.items()) and all(
        accepts(part, value[name], root)
        for name, part in schema.get("properties", {}).items()
        if isinstance(value, dict) and name in value
    )


def _holds(keyword: str, wanted: Any, value: Any, root: dict[str, Any]) -> bool:
    if keyword in _SAYS_NOTHING:
        return True
    if keyword == "$ref":
        return accepts(root["$defs"][wanted.removeprefix("#/$defs/")], value, root)
    if keyword == "anyOf":
        return any(accepts(each, value, root) for each in wanted)
    if keyword == "items":
        return not isinstance(value, list) or all(accepts(wanted, each, root) for each in value)
    return _KEYWORDS[keyword](wanted, value)
