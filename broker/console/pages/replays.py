"""Replays: freeze which letters are meant, look at them, let the canary go, watch, stop, go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from aiohttp import web

from broker import ops
from broker.console.context import DESK, SETTINGS, actor, form, render, see_other
from broker.console.filters import fields_of, filter_of
from broker.console.pages.letters import SAMPLE, sampled
from broker.console.pages.trace import id_in
from broker.ops import Actor, Filter, Refusal

GOING = ("canary", "running")
SHOWN = 100
LISTED = 20

ReplayAct = Callable[[UUID, Actor], Awaitable[None]]


async def listed(request: web.Request) -> web.StreamResponse:
    """The newest replays and how far they are."""
    found = await request.app[DESK].replays.progress(limit=LISTED)
    going = any(each.state in GOING for each in found)
    return render("replays.html", request, replays=found, going=going)


async def ask(request: web.Request) -> web.StreamResponse:
    """Which letters would be replayed; nothing is frozen yet."""
    wanted = filter_of(request.query)
    sample, count, more = await sampled(request.app[DESK], wanted, discarded=False)
    return render(
        "replay_ask.html",
        request,
        wanted=wanted.in_words(),
        empty=wanted.empty,
        fields=fields_of(wanted),
        count=count,
        more=more,
        sample=sample[:SAMPLE],
        rate=request.app[SETTINGS].dead.replay_rate_per_second,
    )


async def prepare(request: web.Request) -> web.StreamResponse:
    """Freeze the set; from here on it is exactly these letters, whatever dies meanwhile."""
    fields = form(request)
    preview = await request.app[DESK].replays.prepare(
        filter_of(fields), actor(request), rate=_rate(fields.get("rate", ""))
    )
    note = f"Frozen: {preview.count} letters. Nothing has moved yet."
    if preview.bookings_left_out:
        note += f" {preview.bookings_left_out} dead bookings are left out: {ops.NO_BOOKINGS}."
    return see_other(request, f"/replays/{preview.replay_id}", note)


async def one(request: web.Request) -> web.StreamResponse:
    """One replay: its preview while it is prepared, its progress afterwards."""
    desk = request.app[DESK]
    progress, items = await desk.replays.one(id_in(request))
    sample = []
    if progress.state == "prepared":
        ids = tuple(item.letter_id for item in items[:SAMPLE])
        found = {each.letter_id: each for each in await desk.letters.listed(Filter(ids=ids))}
        sample = [found[each] for each in ids if each in found]
    return render(
        "replay.html",
        request,
        progress=progress,
        items=items[:SHOWN],
        sample=sample,
        going=progress.state in GOING,
    )


async def start(request: web.Request) -> web.StreamResponse:
    """Let the canary go; a running broker carries the replay on."""
    return await _act(request, request.app[DESK].replays.start, "Started: one letter goes first, alone.")


async def stop(request: web.Request) -> web.StreamResponse:
    """What was not replayed yet stays dead."""
    return await _act(request, request.app[DESK].replays.stop, "Stopped: what waits stays dead.")


async def resume(request: web.Request) -> web.StreamResponse:
    """Go on, with another canary first."""
    return await _act(
        request, request.app[DESK].replays.resume, "Going on: another letter goes first, alone."
    )


async def _act(request: web.Request, act: ReplayAct, note: str) -> web.StreamResponse:
    replay_id: UUID = id_in(request)
    await act(replay_id, actor(request))
    return see_other(request, f"/replays/{replay_id}", note)


def _rate(text: str) -> float | None:
    """Letters a second; empty for the usual. Raises Refusal."""
    if not text.strip():
        return None
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise Refusal("a rate is a number of letters a second") from None
