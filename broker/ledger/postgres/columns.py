"""Batches of rows for PostgreSQL: one array for each column, so that a batch of any size is one statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def unnested(columns: Mapping[str, str], first: int = 1) -> str:
    """SQL for a FROM clause: the arrays from parameter `first` on, as rows `given`. `columns`: name to SQL type."""
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(columns.values(), first))
    return f"unnest({arrays}) AS given ({', '.join(columns)})"


def by_column(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """The parameters for `unnested`: the values of these rows, one list for each column."""
    return [list(column) for column in zip(*rows, strict=True)]
