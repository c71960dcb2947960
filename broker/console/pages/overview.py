"""Overview: are we healthy, in one glance; it renews itself while it is open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import aiohttp_jinja2
from aiohttp import web

from broker.console.context import DESK, SETTINGS, render
from broker.console.live import STREAMS, Live, LiveStreams
from broker.ops import Flow, Overview, Waiting


@dataclass(frozen=True, slots=True)
class Range:
    """How far back the charts go, and how many minutes one of their columns stands for."""

    title: str
    hours: float
    step_minutes: int


RANGES = {
    "3h": Range("3 hours", 3, 2),
    "24h": Range("24 hours", 24, 15),
    "14d": Range("14 days", 14 * 24, 4 * 60),
}
FIRST = "3h"
SHOWN = 20
"""Causes in a table; the page of dead letters has them all."""
MOODS = {
    "done": "good",
    "refused": "plain",
    "expired": "plain",
    "uncertain": "warn",
    "failed": "bad",
    "dead": "bad",
}
"""How each status is drawn; one that is not here is drawn as bad."""
BASE = ("good", "plain", "warn", "bad")


async def page(request: web.Request) -> web.StreamResponse:
    """Everything at once; `range` is one of RANGES."""
    name = _range(request)
    seen = await _look(request.app, name)
    return render("overview.html", request, **facts_of(seen, name), ranges=RANGES)


async def events(request: web.Request) -> web.StreamResponse:
    """The same, again and again."""
    return await request.app[STREAMS].serve(request, _range(request))


def set_up(app: web.Application) -> None:
    """Make the streams; they end with the application."""
    settings = app[SETTINGS].console
    lives = {name: Live(partial(_rendered, app, name), settings.live_every_seconds) for name in RANGES}
    app[STREAMS] = streams = LiveStreams(lives, settings.listeners_most)

    async def close(_: web.Application) -> None:
        streams.close()

    app.on_shutdown.append(close)


def _range(request: web.Request) -> str:
    name = request.query.get("range", FIRST)
    return name if name in RANGES else FIRST


async def _look(app: web.Application, name: str) -> Overview:
    chosen = RANGES[name]
    return await app[DESK].overviews.overview(hours=chosen.hours, step_minutes=chosen.step_minutes)


async def _rendered(app: web.Application, name: str) -> str:
    template = aiohttp_jinja2.get_env(app).get_template("_overview.html")
    return template.render(facts_of(await _look(app, name), name))


def facts_of(seen: Overview, name: str) -> dict[str, Any]:
    """What the template needs. Pure."""
    running = [worker for worker in seen.workers if worker.stopped_at is None]
    return {
        "seen": seen,
        "range": name,
        "title": RANGES[name].title,
        "per_minute": per_minute(seen.flow),
        "arrived": {"plain": [sum(step.requests.values()) for step in seen.flow.steps]},
        "answered": by_mood(seen.flow),
        "reports": {
            "good": [sum(step.delivered.values()) for step in seen.flow.steps],
            "bad": [sum(step.dead.values()) for step in seen.flow.steps],
        },
        "ready": sum(worker.alive and worker.ready for worker in running),
        "running": len(running),
        "shown": SHOWN,
        "causes": by_cause(seen.waiting),
        "waiting": sum(row.count for row in seen.waiting),
        "oldest_waiting_at": min((row.oldest_at for row in seen.waiting), default=None),
        "dead": sum(row.count for row in seen.dead),
        "died_last_hour": sum(row.last_hour for row in seen.dead),
        "oldest_dead_at": min((row.oldest_at for row in seen.dead), default=None),
    }


@dataclass(frozen=True, slots=True)
class WaitingCause:
    """Reports that wait because of the same last failure, over all suppliers; None: not tried yet."""

    cause: str | None
    count: int
    suppliers: tuple[str, ...]
    oldest_at: datetime
    next_due_at: datetime


def by_cause(rows: Sequence[Waiting]) -> list[WaitingCause]:
    """The largest first. Pure."""
    found = [
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
    return sorted(found, key=lambda row: (-row.count, row.cause or ""))


def per_minute(flow: Flow) -> dict[str, float]:
    """Requests and answers a minute, in the last step that is full."""
    full = flow.steps[-2:-1]
    return {
        what: sum(sum(getattr(step, what).values()) for step in full) / flow.step_minutes
        for what in ("requests", "answers")
    }


def by_mood(flow: Flow) -> dict[str, list[int]]:
    """Answers of each step, by how they are drawn."""
    found = {mood: [0] * len(flow.steps) for mood in BASE}
    for place, step in enumerate(flow.steps):
        for status, count in step.answers.items():
            found[MOODS.get(status, "bad")][place] += count
    return found
