"""Writes a directory as TOML, for tests that read it back."""

from __future__ import annotations

import json

from config.directory import Directory


def dump_directory(directory: Directory) -> str:
    """The directory as TOML; `load_directory` reads it back as an equal directory (relative paths stay relative)."""
    tables: list[str] = []
    for table in Directory.model_fields:
        for name, entry in getattr(directory, table).items():
            pairs = entry.model_dump(mode="json", exclude_defaults=True).items()
            lines = (f"{key} = {_toml(value)}" for key, value in pairs)
            tables.append("\n".join((f"[{table}.{name}]", *lines, "")))
    return "\n".join(tables)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
