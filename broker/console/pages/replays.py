"""Replays: choose and freeze the letters, preview, start with a canary, follow the progress, stop, resume."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from aiohttp import web

from broker import ops
from broker.console.context import OPERATIONS, SETTINGS, actor_of, form_of, render, see_other
from broker.console.filters import fields_of, filter_of
from broker.console.pages.letters import SAMPLE, sample_of
from broker.console.pages.trace import id_in
from broker.ops import Actor, Filter, Refusal

ACTIVE = ("canary", "running")
SHOWN = 100
LISTED = 20

ReplayAct = Callable[[UUID, Actor], Awaitable[None]]


async def listing(request: web.Request) -> web.StreamResponse:
    """The newest replays with their progress."""
    found = await request.app[OPERATIONS].replays.progress(limit=LISTED)
    active = any(replay.state in ACTIVE for replay in found)
    return render("replays.html", request, replays=found, active=active)


async def new(request: web.Request) -> web.StreamResponse:
    """Show which letters would be replayed; nothing is frozen yet."""
    wanted = filter_of(request.query)
    sample, count, more = await sample_of(request.app[OPERATIONS], wanted, discarded=False)
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
    """Freeze the set of letters; letters that die later are not part of it."""
    fields = form_of(request)
    preview = await request.app[OPERATIONS].replays.prepare(
        filter_of(fields), actor_of(request), rate=_rate(fields.get("rate", ""))
    )
    note = f"Frozen: {preview.count} letters. Nothing has been replayed yet."
    if preview.bookings_left_out:
        note += f" {preview.bookings_left_out} dead bookings are left out: {ops.NO_BOOKINGS}."
    return see_other(request, f"/replays/{preview.replay_id}", note)


async def detail(request: web.Request) -> web.StreamResponse:
    """One replay: the preview until it is started, the progress afterwards."""
    operations = request.app[OPERATIONS]
    progress, items = await operations.replays.one(id_in(request))
    sample = []
    if progress.state == "prepared":
        ids = tuple(item.letter_id for item in items[:SAMPLE])
        letters = {letter.letter_id: letter for letter in await operations.letters.listed(Filter(ids=ids))}
        sample = [letters[letter_id] for letter_id in ids if letter_id in letters]
    return render(
        "replay.html",
        request,
        progress=progress,
        items=items[:SHOWN],
        sample=sample,
        active=progress.state in ACTIVE,
    )


async def start(request: web.Request) -> web.StreamResponse:
    """Start with the canary; running brokers do the work."""
    return await _act(
        request, request.app[OPERATIONS].replays.start, "Started: one letter, the canary, is replayed first."
    )


async def stop(request: web.Request) -> web.StreamResponse:
    """Stop; the letters not yet replayed stay dead."""
    return await _act(
        request, request.app[OPERATIONS].replays.stop, "Stopped: the remaining letters stay dead."
    )


async def resume(request: web.Request) -> web.StreamResponse:
    """Continue, with a new canary first."""
    return await _act(
        request,
        request.app[OPERATIONS].replays.resume,
        "Resumed: another letter, the new canary, is replayed first.",
    )


async def _act(request: web.Request, act: ReplayAct, note: str) -> web.StreamResponse:
    replay_id: UUID = id_in(request)
    await act(replay_id, actor_of(request))
    return see_other(request, f"/replays/{replay_id}", note)


def _rate(text: str) -> float | None:
    """Letters per second; None if the field is empty. Raises Refusal."""
    if not text.strip():
        return None
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise Refusal("a rate is a number of letters per second") from None
