"""Trace: paste any id and read the whole story on a time line."""

from __future__ import annotations

from uuid import UUID

from aiohttp import web

from broker import ops
from broker.console.context import DESK, form, render, see_other
from broker.console.timeline import moments
from broker.ops import Refusal


async def ask(request: web.Request) -> web.StreamResponse:
    """The field to paste an id into."""
    return render("trace.html", request, story=None, moments=(), problem=None)


async def look_up(request: web.Request) -> web.StreamResponse:
    """By POST, so that what is pasted by mistake is in no address and no history; it is not shown again either."""
    pasted = form(request).get("id", "").strip()
    try:
        return see_other(request, f"/trace/{UUID(pasted)}")
    except ValueError:
        problem = "this is no id: ids are of the form 01234567-89ab-cdef-0123-456789abcdef"
        return render("trace.html", request, status=422, story=None, moments=(), problem=problem)


async def story(request: web.Request) -> web.StreamResponse:
    """The story of a requestId, reportId or letter id; a replay has a page of its own."""
    any_id, desk = id_in(request), request.app[DESK]
    try:
        found = await desk.stories.whole(any_id)
    except Refusal:
        if await _is_a_replay(desk, any_id):
            return see_other(request, f"/replays/{any_id}")
        raise
    return render("trace.html", request, story=found, moments=moments(found), problem=None, any_id=any_id)


async def _is_a_replay(desk: ops.Operations, any_id: UUID) -> bool:
    try:
        await desk.replays.one(any_id)
    except Refusal:
        return False
    return True


def id_in(request: web.Request, name: str = "id") -> UUID:
    """The id in the address. Raises HTTPNotFound."""
    try:
        return UUID(request.match_info[name])
    except ValueError:
        raise web.HTTPNotFound from None
