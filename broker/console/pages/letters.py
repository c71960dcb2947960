"""Acts over dead letters: put aside, take that back, have a booking verified. Each shows first what is meant.

What was looked at is what is acted on: the form carries the filter narrowed to letters that were dead by then.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlencode

from aiohttp import web

from broker import ops
from broker.console.context import DESK, actor, form, render, see_other
from broker.console.filters import fields_of, filter_of
from broker.console.pages.trace import id_in
from broker.ops import Filter, Letter

SAMPLE = 5
DISCARD = "They leave the dead-letter queues. They can be restored until retention deletes them."
RESTORE = "They are dead letters again, as they were before they were put aside."
MORE = "There may be more: one step takes so many, and here is the next."
VERIFY = "Its fate is looked up again at the booking system; it is never carried out late."


async def ask_discard(request: web.Request) -> web.StreamResponse:
    """Which letters would be put aside."""
    return await _ask(request, "Discard", DISCARD, discarded=False)


async def discard(request: web.Request) -> web.StreamResponse:
    """Put them aside; the note says how to undo it."""
    wanted = filter_of(form(request))
    count = await request.app[DESK].letters.discard(wanted, actor(request))
    named = urlencode(fields_of(wanted))
    if count >= ops.MOST_AT_ONCE:
        return see_other(request, f"/dead/discard?{named}", f"Put aside: {count}. {MORE}")
    return see_other(request, f"/dead/restore?{named}", f"Put aside: {count}. Here it can be taken back.")


async def ask_restore(request: web.Request) -> web.StreamResponse:
    """Which letters would come back."""
    return await _ask(request, "Restore", RESTORE, discarded=True)


async def restore(request: web.Request) -> web.StreamResponse:
    """Take a discard back."""
    wanted = filter_of(form(request))
    count = await request.app[DESK].letters.restore(wanted, actor(request))
    if count >= ops.MOST_AT_ONCE:
        return see_other(
            request, f"/dead/restore?{urlencode(fields_of(wanted))}", f"Restored: {count}. {MORE}"
        )
    return see_other(request, f"/dead?{urlencode(fields_of(wanted))}", f"Restored: {count}.")


async def ask_verify(request: web.Request) -> web.StreamResponse:
    """What verifying a dead booking means."""
    found = await request.app[DESK].letters.one(id_in(request))
    facts = {"booking": found.letter_id, "type": found.type, "cause": found.cause}
    return render(
        "act.html",
        request,
        title="Verify a dead booking",
        meaning=VERIFY,
        facts=facts,
        action=request.path,
        label="Verify",
    )


async def verify(request: web.Request) -> web.StreamResponse:
    """Its verification is due now."""
    request_id = id_in(request)
    await request.app[DESK].letters.verify(request_id, actor(request))
    return see_other(
        request, f"/trace/{request_id}", "Its verification is due; a running broker does it now."
    )


async def _ask(request: web.Request, verb: str, meaning: str, *, discarded: bool) -> web.StreamResponse:
    desk, wanted = request.app[DESK], filter_of(request.query)
    sample, count, more = await sampled(desk, wanted, discarded=discarded)
    frozen = narrowed(wanted, sample)
    return render(
        "letters_act.html",
        request,
        title=f"{verb} dead letters",
        meaning=meaning,
        wanted=wanted.in_words(),
        empty=wanted.empty,
        fields=fields_of(frozen),
        sample=sample[:SAMPLE],
        count=count,
        more=more,
        at_once=ops.MOST_AT_ONCE,
        action=request.path,
        label=verb,
        kind="danger" if verb == "Discard" else "",
    )


MOST = 1000


async def sampled(desk: ops.Operations, wanted: Filter, *, discarded: bool) -> tuple[list[Letter], int, bool]:
    """The newest letters that are meant, how many there are, and whether there are more than were counted."""
    found = await desk.letters.listed(wanted, limit=MOST, discarded=discarded)
    if discarded or len(found) < MOST:
        return found, len(found), len(found) == MOST
    return found, sum(group.count for group in await desk.letters.groups(wanted, limit=MOST)), False


def narrowed(wanted: Filter, newest_first: list[Letter]) -> Filter:
    """The same letters and none that died since: by the ledger's own time of the newest."""
    if not newest_first or wanted.ids is not None:
        return wanted
    until = newest_first[0].last_seen_at + timedelta(microseconds=1)
    return replace(wanted, before=min(wanted.before or until, until))
