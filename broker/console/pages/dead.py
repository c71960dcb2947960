"""Dead letters: groups, a searchable list in pages, one letter with its timeline."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from aiohttp import web

from broker.console.context import OPERATIONS, form_of, render, see_other
from broker.console.filters import fields_of, filter_of
from broker.console.pages.trace import id_in
from broker.console.timeline import moments
from broker.ops import Filter, PageCursor, Refusal
from broker.telemetry.redaction import scrub

PAGE = 50
GROUPS = 50
CLASSES = ("message", "moment", "setup", "ours")
KINDS = ("report", "booking", "message")


async def listing(request: web.Request) -> web.StreamResponse:
    """Groups and the newest letters that match. After a cursor (`behind`): only the next letters."""
    operations, wanted = request.app[OPERATIONS], filter_of(request.query)
    discarded = request.query.get("discarded") == "1"
    behind = PageCursor.read(request.query["behind"]) if request.query.get("behind") else None
    page = await operations.letters.page(wanted, limit=PAGE, after=behind, discarded=discarded)
    groups = [] if behind or discarded else await operations.letters.groups(wanted, limit=GROUPS)
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
        suppliers=[row.lane.supplier for row in await operations.lanes.all()],
        classes=CLASSES,
        kinds=KINDS,
    )


async def search(request: web.Request) -> web.StreamResponse:
    """By POST, so that a CPR number pasted by mistake is in no address and no history."""
    fields = form_of(request)
    wanted = filter_of(fields)
    chosen = fields_of(wanted) | _discarded_field(fields)
    if any(scrub(value) != value for value in chosen.values()):
        raise Refusal("a field contains what looks like a CPR number; nothing was searched")
    return see_other(request, f"/dead?{urlencode(chosen)}" if chosen else "/dead")


def _discarded_field(fields: Mapping[str, str]) -> dict[str, str]:
    return {"discarded": "1"} if fields.get("discarded") == "1" else {}


async def detail(request: web.Request) -> web.StreamResponse:
    """One letter and its timeline. If it is no longer dead, redirects to its trace."""
    operations, letter_id = request.app[OPERATIONS], id_in(request)
    wanted = Filter(ids=(letter_id,))
    dead, put_aside = [
        await operations.letters.listed(wanted, limit=1, discarded=discarded) for discarded in (False, True)
    ]
    if not dead and not put_aside:
        await operations.stories.whole(letter_id)
        return see_other(request, f"/trace/{letter_id}", "This letter is no longer dead; this is its trace.")
    story = await operations.stories.whole(letter_id)
    return render(
        "letter.html",
        request,
        letter=(dead or put_aside)[0],
        discarded=not dead,
        story=story,
        moments=moments(story),
    )
