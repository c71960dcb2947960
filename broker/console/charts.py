"""Small charts as SVG, drawn on the server: shapes with classes, no style, no script, a sentence for who cannot see.

Pure; everything in them is numbers of ours and escaped words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from markupsafe import Markup

HEIGHT = 60
COLUMN, GAP = 4, 1

SVG = Markup(
    '<svg class="chart {kind}" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img"'
    ' aria-label="{label}"><title>{label}</title>{shapes}</svg>'
)
PATH = Markup('<path class="{mood}" d="{d}"/>')


def columns(parts: Mapping[str, Sequence[int]], label: str) -> Markup:
    """Stacked columns: for each mood (a class of the style sheet) a number per column; the first mood is lowest."""
    rows = list(parts.values())
    totals = [sum(numbers) for numbers in zip(*rows, strict=True)]
    most = max(totals, default=0)
    if not most:
        return _svg("columns", max(len(totals), 1) * COLUMN, label, Markup())
    floors = accumulate(rows[:-1], _added, initial=[0] * len(totals))
    shapes = (
        PATH.format(mood=mood, d=_bars(numbers, floor, most))
        for (mood, numbers), floor in zip(parts.items(), floors, strict=True)
    )
    return _svg("columns", len(totals) * COLUMN, label, Markup().join(shapes))


def spark(counts: Sequence[int], what: str = "in the last 24 hours") -> Markup:
    """A row of little columns, and in words how many there were and in which hour the most."""
    label = f"{sum(counts)} {what}, at most {max(counts, default=0)} an hour"
    bars = _bars(counts, [0] * len(counts), max(counts, default=0)) if any(counts) else ""
    shapes = PATH.format(mood="plain", d=bars) if bars else Markup()
    return _svg("spark", max(len(counts), 1) * COLUMN, label, shapes)


def _svg(kind: str, width: int, label: str, shapes: Markup) -> Markup:
    return SVG.format(kind=kind, width=width, height=HEIGHT, label=label, shapes=shapes)


def _added(floor: Sequence[int], more: Sequence[int]) -> list[int]:
    return [low + number for low, number in zip(floor, more, strict=True)]


def _bars(numbers: Sequence[int], floor: Sequence[int], most: int) -> str:
    """One path for all columns of a mood. What is there at all is at least a line high."""
    found = []
    for place, (number, low) in enumerate(zip(numbers, floor, strict=True)):
        if number:
            height = max(1.5, HEIGHT * number / most)
            top = HEIGHT - HEIGHT * low / most - height
            found.append(f"M{place * COLUMN} {top:.1f}h{COLUMN - GAP}v{height:.1f}h-{COLUMN - GAP}z")
    return "".join(found)
