"""Dead letters: groups by what failed, a list that is searched and paged, one letter with its whole story."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from aiohttp import web

from broker.console.context import DESK, form, render, see_other
from broker.console.filters import fields_of, filter_of
from broker.console.pages.trace import id_in
from broker.console.timeline import moments
from broker.ops import Filter, PageCursor, Refusal
from broker.telemetry.redaction import scrub

PAGE = 50
GROUPS = 50
CLASSES = ("message", "moment", "setup", "ours")
KINDS = ("report", "booking", "message")


async def listed(request: web.Request) -> web.StreamResponse:
    """Groups and the newest letters that match; behind a place, the next letters alone."""
    desk, wanted = request.app[DESK], filter_of(request.query)
    discarded = request.query.get("discarded") == "1"
    behind = PageCursor.read(request.query["behind"]) if request.query.get("behind") else None
    page = await desk.letters.page(wanted, limit=PAGE, after=behind, discarded=discarded)
    groups = [] if behind or discarded else await desk.letters.groups(wanted, limit=GROUPS)
    fields = fields_of(wanted) | ({"discarded": "1"} if discarded else {})
    return render(
        "dead.html",
        request,
        page=page,
        groups=groups,
        more_groups=len(groups) == GROUPS,
        wanted=wanted,
        words=wanted.in_words(),
        fields=fields_of(wanted),
        query=urlencode(fields),
        behind=behind,
        discarded=discarded,
        suppliers=[row.lane.supplier for row in await desk.lanes.all()],
        classes=CLASSES,
        kinds=KINDS,
    )


async def search(request: web.Request) -> web.StreamResponse:
    """By POST, so that what is pasted by mistake is in no address and no history."""
    fields = form(request)
    wanted = filter_of(fields)
    chosen = fields_of(wanted) | _put_aside(fields)
    if any(scrub(value) != value for value in chosen.values()):
        raise Refusal("a field holds what looks like a CPR number; nothing was looked for")
    return see_other(request, f"/dead?{urlencode(chosen)}" if chosen else "/dead")


def _put_aside(fields: Mapping[str, str]) -> dict[str, str]:
    return {"discarded": "1"} if fields.get("discarded") == "1" else {}


async def one(request: web.Request) -> web.StreamResponse:
    """One letter and its story; what is dead no more has its story left."""
    desk, letter_id = request.app[DESK], id_in(request)
    wanted = Filter(ids=(letter_id,))
    open_, aside = [
        await desk.letters.listed(wanted, limit=1, discarded=discarded) for discarded in (False, True)
    ]
    if not open_ and not aside:
        await desk.stories.whole(letter_id)
        return see_other(request, f"/trace/{letter_id}", "It is no dead letter now; this is its story.")
    story = await desk.stories.whole(letter_id)
    return render(
        "letter.html",
        request,
        letter=(open_ or aside)[0],
        discarded=not open_,
        story=story,
        moments=moments(story),
    )
