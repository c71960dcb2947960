"""The template environment and its filters, which format values for pages. Everything is escaped."""

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
UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def configure_templates(app: web.Application) -> None:
    """Load the templates and the static files, once at start."""
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


def when(at: datetime | None, fraction: str = "") -> str:
    """A <time> element: Danish time for people, UTC for programs."""
    if at is None:
        return ""
    text = at.astimezone(DANISH).strftime("%Y-%m-%d %H:%M:%S") + fraction
    return Markup('<time datetime="{}">{}</time>').format(at.astimezone(UTC).isoformat(), text)


def exactly(at: datetime) -> str:
    """Like `when`, with milliseconds, where the order matters."""
    return when(at, f".{at.microsecond // 1000:03}")


def number(count: int) -> str:
    """A number with thousands separators."""
    return f"{count:,}"


def field_time(at: datetime | None) -> str:
    """A time for an input of type datetime-local, in Danish time."""
    return at.astimezone(DANISH).strftime("%Y-%m-%dT%H:%M") if at else ""


def ago(at: datetime | None, now: datetime | None = None) -> str:
    """How long ago: `2 h 5 min`."""
    if at is None:
        return ""
    return span(((now or datetime.now(UTC)) - at).total_seconds())


def span(seconds: float | None) -> str:
    """A duration in its two largest units: `2 h 5 min`."""
    if seconds is None:
        return ""
    remaining, parts = max(0, round(seconds)), list[str]()
    for size, name in UNITS:
        if remaining >= size or (name == "s" and not parts):
            parts.append(f"{remaining // size} {name}")
            remaining %= size
    return " ".join(parts[:2])
