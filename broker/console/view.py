"""How facts look on a page: the templates' environment and its filters. Everything is escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import aiohttp_jinja2
import jinja2
from aiohttp import web
from markupsafe import Markup

from broker.console.charts import columns, spark
from broker.console.context import FILES

HERE = Path(__file__).parent
DANISH = ZoneInfo("Europe/Copenhagen")
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
STEPS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def set_up(app: web.Application) -> None:
    """Templates and the files beside them, read once."""
    environment = aiohttp_jinja2.setup(
        app,
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"when": when, "exactly": exactly, "ago": ago, "span": span}
    environment.filters |= {"spark": spark, "columns": columns, "field_time": field_time, "number": number}
    app[FILES] = {
        file.name: (KINDS[file.suffix], file.read_bytes()) for file in sorted((HERE / "static").iterdir())
    }


def when(at: datetime | None, more: str = "") -> str:
    """A time as a Danish clock shows it, and exactly for programs."""
    if at is None:
        return ""
    shown = at.astimezone(DANISH).strftime("%Y-%m-%d %H:%M:%S") + more
    return Markup('<time datetime="{}">{}</time>').format(at.astimezone(UTC).isoformat(), shown)


def exactly(at: datetime) -> str:
    """To the millisecond, where the order matters."""
    return when(at, f".{at.microsecond // 1000:03}")


def number(count: int) -> str:
    """A large number with its thousands apart."""
    return f"{count:,}"


def field_time(at: datetime | None) -> str:
    """A time as a field of a form takes it, in Danish time."""
    return at.astimezone(DANISH).strftime("%Y-%m-%dT%H:%M") if at else ""


def ago(at: datetime | None, now: datetime | None = None) -> str:
    """How long ago, in its two largest parts."""
    if at is None:
        return ""
    return span(((now or datetime.now(UTC)) - at).total_seconds())


def span(seconds: float | None) -> str:
    """A length of time: `2 h 5 min`."""
    if seconds is None:
        return ""
    left, parts = max(0, round(seconds)), list[str]()
    for size, name in STEPS:
        if left >= size or (name == "s" and not parts):
            parts.append(f"{left // size} {name}")
            left %= size
    return " ".join(parts[:2])
