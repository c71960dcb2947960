"""Bar charts as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, LEFT, BAR, GAP, TOP = 760, 150, 22, 10, 34
FONT = 'font-family="sans-serif" font-size="13"'
BROKER, OTHERS = "#1f5fa8", "#9aa7b4"


def chart(panels: Sequence[tuple[str, str, Mapping[str, float]]]) -> str:
    """Panels below each other, each with a title, a unit and one bar per name."""
    height = sum(TOP + len(bars) * (BAR + GAP) + GAP for _, _, bars in panels)
    lines, y = [], 0
    for title, unit, bars in panels:
        y += TOP
        lines.append(f'<text x="10" y="{y - 12}" font-weight="bold">{escape(title)}</text>')
        lines += _bars(bars, unit, y)
        y += len(bars) * (BAR + GAP) + GAP
    body = "\n".join(lines)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {FONT} role="img">'
    return f'{head}\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'


def _bars(bars: Mapping[str, float], unit: str, y: int) -> list[str]:
    most = max(bars.values(), default=1.0) or 1.0
    lines = []
    for number, (name, value) in enumerate(bars.items()):
        top = y + number * (BAR + GAP)
        width = max(1, round((WIDTH - LEFT - 130) * value / most))
        colour = BROKER if name == "jobnet-broker" else OTHERS
        lines.append(f'<text x="{LEFT - 8}" y="{top + 16}" text-anchor="end">{escape(name)}</text>')
        lines.append(f'<rect x="{LEFT}" y="{top}" width="{width}" height="{BAR}" fill="{colour}"/>')
        lines.append(f'<text x="{LEFT + width + 6}" y="{top + 16}">{value:,.0f} {escape(unit)}</text>')
    return lines
