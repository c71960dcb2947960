"""Small charts as SVG, drawn on the server: no inline style, no script, and a text label for screen readers. Pure."""

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
    """Stacked columns. `parts`: for each mood (a CSS class) one number per column; the first mood is at the bottom."""
    rows = list(parts.values())
    totals = [sum(numbers) for numbers in zip(*rows, strict=True)]
    highest = max(totals, default=0)
    if not highest:
        return _svg("columns", max(len(totals), 1) * COLUMN, label, Markup())
    floors = accumulate(rows[:-1], _added, initial=[0] * len(totals))
    shapes = (
        PATH.format(mood=mood, d=_bars(numbers, floor, highest))
        for (mood, numbers), floor in zip(parts.items(), floors, strict=True)
    )
    return _svg("columns", len(totals) * COLUMN, label, Markup().join(shapes))


def spark(counts: Sequence[int], period: str = "in the last 24 hours") -> Markup:
    """A sparkline of hourly counts; its label says the sum and the highest count."""
    label = f"{sum(counts)} {period}, at most {max(counts, default=0)} an hour"
    bars = _bars(counts, [0] * len(counts), max(counts, default=0)) if any(counts) else ""
    shapes = PATH.format(mood="plain", d=bars) if bars else Markup()
    return _svg("spark", max(len(counts), 1) * COLUMN, label, shapes)


def _svg(kind: str, width: int, label: str, shapes: Markup) -> Markup:
    return SVG.format(kind=kind, width=width, height=HEIGHT, label=label, shapes=shapes)


def _added(floor: Sequence[int], more: Sequence[int]) -> list[int]:
    return [low + number for low, number in zip(floor, more, strict=True)]


def _bars(numbers: Sequence[int], floor: Sequence[int], highest: int) -> str:
    """One SVG path for all columns of a mood."""
    paths = []
    for column, (number, low) in enumerate(zip(numbers, floor, strict=True)):
        if number:
            # At least a visible line.
            height = max(1.5, HEIGHT * number / highest)
            top = HEIGHT - HEIGHT * low / highest - height
            paths.append(f"M{column * COLUMN} {top:.1f}h{COLUMN - GAP}v{height:.1f}h-{COLUMN - GAP}z")
    return "".join(paths)
