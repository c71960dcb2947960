"""Overview: whether all is well. The page updates itself while it is open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import aiohttp_jinja2
from aiohttp import web

from broker.console.context import OPERATIONS, SETTINGS, render
from broker.console.live import STREAMS, Live, LiveStreams
from broker.ops import Flow, Overview, Waiting


@dataclass(frozen=True, slots=True)
class Range:
    """The period of the charts, and the minutes of one column."""

    title: str
    hours: float
    step_minutes: int


RANGES = {
    "3h": Range("3 hours", 3, 2),
    "24h": Range("24 hours", 24, 15),
    "14d": Range("14 days", 14 * 24, 4 * 60),
}
DEFAULT_RANGE = "3h"
SHOWN = 20
"""Most causes in a table; the page of dead letters has all."""
MOODS = {
    "done": "good",
    "refused": "plain",
    "expired": "plain",
    "uncertain": "warn",
    "failed": "bad",
    "dead": "bad",
}
"""The mood (a CSS class) of each status; a status that is missing here is drawn as bad."""
MOOD_ORDER = ("good", "plain", "warn", "bad")


async def page(request: web.Request) -> web.StreamResponse:
    """The whole page; the query parameter `range` is one of RANGES."""
    name = _range(request)
    overview = await _read_overview(request.app, name)
    return render("overview.html", request, **facts_of(overview, name), ranges=RANGES)


async def events(request: web.Request) -> web.StreamResponse:
    """Server-sent events: the overview, rendered again every `live_every_seconds`."""
    return await request.app[STREAMS].serve(request, _range(request))


def configure_streams(app: web.Application) -> None:
    """Create the streams; they end with the application."""
    settings = app[SETTINGS].console
    lives = {name: Live(partial(_rendered, app, name), settings.live_every_seconds) for name in RANGES}
    app[STREAMS] = streams = LiveStreams(lives, settings.listeners_most)

    async def close(_: web.Application) -> None:
        streams.close()

    app.on_shutdown.append(close)


def _range(request: web.Request) -> str:
    name = request.query.get("range", DEFAULT_RANGE)
    return name if name in RANGES else DEFAULT_RANGE


async def _read_overview(app: web.Application, name: str) -> Overview:
    chosen = RANGES[name]
    return await app[OPERATIONS].overviews.overview(hours=chosen.hours, step_minutes=chosen.step_minutes)


async def _rendered(app: web.Application, name: str) -> str:
    template = aiohttp_jinja2.get_env(app).get_template("_overview.html")
    return template.render(facts_of(await _read_overview(app, name), name))


def facts_of(overview: Overview, name: str) -> dict[str, Any]:
    """The values for the template. Pure."""
    running = [worker for worker in overview.workers if worker.stopped_at is None]
    return {
        "overview": overview,
        "range": name,
        "title": RANGES[name].title,
        "per_minute": per_minute(overview.flow),
        "arrived": {"plain": [sum(step.requests.values()) for step in overview.flow.steps]},
        "answered": by_mood(overview.flow),
        "reports": {
            "good": [sum(step.delivered.values()) for step in overview.flow.steps],
            "bad": [sum(step.dead.values()) for step in overview.flow.steps],
        },
        "ready": sum(worker.alive and worker.ready for worker in running),
        "running": len(running),
        "shown": SHOWN,
        "causes": by_cause(overview.waiting),
        "waiting": sum(row.count for row in overview.waiting),
        "oldest_waiting_at": min((row.oldest_at for row in overview.waiting), default=None),
        "dead": sum(row.count for row in overview.dead),
        "died_last_hour": sum(row.last_hour for row in overview.dead),
        "oldest_dead_at": min((row.oldest_at for row in overview.dead), default=None),
    }


@dataclass(frozen=True, slots=True)
class WaitingCause:
    """Waiting reports of all suppliers with the same last failure; cause None: not tried yet."""

    cause: str | None
    count: int
    suppliers: tuple[str, ...]
    oldest_at: datetime
    next_due_at: datetime


def by_cause(rows: Sequence[Waiting]) -> list[WaitingCause]:
    """Waiting reports by cause, the largest count first. Pure."""
    causes = [
        WaitingCause(
            cause,
            sum(row.count for row in same),
            tuple(sorted({row.supplier for row in same if row.supplier})),
            min(row.oldest_at for row in same),
            min(row.next_due_at for row in same),
        )
        for cause in {row.cause for row in rows}
        if (same := [row for row in rows if row.cause == cause])
    ]
    return sorted(causes, key=lambda row: (-row.count, row.cause or ""))


def per_minute(flow: Flow) -> dict[str, float]:
    """Requests and answers per minute, in the last complete step."""
    complete = flow.steps[-2:-1]
    return {
        what: sum(sum(getattr(step, what).values()) for step in complete) / flow.step_minutes
        for what in ("requests", "answers")
    }


def by_mood(flow: Flow) -> dict[str, list[int]]:
    """Answers of each step, counted by mood."""
    counts = {mood: [0] * len(flow.steps) for mood in MOOD_ORDER}
    for number, step in enumerate(flow.steps):
        for status, count in step.answers.items():
            counts[MOODS.get(status, "bad")][number] += count
    return counts
