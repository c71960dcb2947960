"""Acts on dead letters: discard, restore, verify a booking. A page shows each act before it is done.

The act covers the letters that the page showed: the form holds the filter, limited to letters that were dead by then.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlencode

from aiohttp import web

from broker import ops
from broker.console.context import OPERATIONS, actor_of, form_of, render, see_other
from broker.console.filters import fields_of, filter_of
from broker.console.pages.trace import id_in
from broker.ops import Filter, Letter

SAMPLE = 5
MOST_COUNTED = 1000
DISCARD = "Discarded letters leave the dead-letter queues. They can be restored until retention deletes them."
RESTORE = "Restored letters are dead letters again, as before."
MORE = f"There may be more: one step takes at most {ops.MOST_AT_ONCE}. This is the next step."
VERIFY = (
    "The booking's outcome is looked up again at the booking system. The booking is never carried out late."
)


async def confirm_discard(request: web.Request) -> web.StreamResponse:
    """Show which letters would be discarded."""
    return await _confirm(request, "Discard", DISCARD, discarded=False)


async def discard(request: web.Request) -> web.StreamResponse:
    """Discard the letters; the note says how to undo it."""
    wanted = filter_of(form_of(request))
    count = await request.app[OPERATIONS].letters.discard(wanted, actor_of(request))
    query = urlencode(fields_of(wanted))
    if count >= ops.MOST_AT_ONCE:
        return see_other(request, f"/dead/discard?{query}", f"Discarded: {count}. {MORE}")
    return see_other(request, f"/dead/restore?{query}", f"Discarded: {count}. They can be restored here.")


async def confirm_restore(request: web.Request) -> web.StreamResponse:
    """Show which letters would be restored."""
    return await _confirm(request, "Restore", RESTORE, discarded=True)


async def restore(request: web.Request) -> web.StreamResponse:
    """Undo a discard."""
    wanted = filter_of(form_of(request))
    count = await request.app[OPERATIONS].letters.restore(wanted, actor_of(request))
    if count >= ops.MOST_AT_ONCE:
        return see_other(
            request, f"/dead/restore?{urlencode(fields_of(wanted))}", f"Restored: {count}. {MORE}"
        )
    return see_other(request, f"/dead?{urlencode(fields_of(wanted))}", f"Restored: {count}.")


async def confirm_verify(request: web.Request) -> web.StreamResponse:
    """Say what verifying a dead booking means and ask for the reason."""
    letter = await request.app[OPERATIONS].letters.one(id_in(request))
    facts = {"booking": letter.letter_id, "type": letter.type, "cause": letter.cause}
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
    """Make the verification due now."""
    request_id = id_in(request)
    await request.app[OPERATIONS].letters.verify(request_id, actor_of(request))
    return see_other(
        request, f"/trace/{request_id}", "The verification is due; a running broker does it now."
    )


async def _confirm(request: web.Request, verb: str, meaning: str, *, discarded: bool) -> web.StreamResponse:
    operations, wanted = request.app[OPERATIONS], filter_of(request.query)
    sample, count, more = await sample_of(operations, wanted, discarded=discarded)
    frozen = frozen_filter(wanted, sample)
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


async def sample_of(
    operations: ops.Operations, wanted: Filter, *, discarded: bool
) -> tuple[list[Letter], int, bool]:
    """The newest matching letters, how many match, and whether there are more than were counted."""
    letters = await operations.letters.listed(wanted, limit=MOST_COUNTED, discarded=discarded)
    if discarded or len(letters) < MOST_COUNTED:
        return letters, len(letters), len(letters) == MOST_COUNTED
    return (
        letters,
        sum(group.count for group in await operations.letters.groups(wanted, limit=MOST_COUNTED)),
        False,
    )


def frozen_filter(wanted: Filter, newest_first: list[Letter]) -> Filter:
    """The filter limited to letters that were dead when the page was made, by the ledger's time of the newest."""
    if not newest_first or wanted.ids is not None:
        return wanted
    until = newest_first[0].last_seen_at + timedelta(microseconds=1)
    return replace(wanted, before=min(wanted.before or until, until))
