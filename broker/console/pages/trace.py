"""Trace: paste any id and read everything about it on a timeline."""

from __future__ import annotations

from uuid import UUID

from aiohttp import web

from broker import ops
from broker.console.context import OPERATIONS, form_of, render, see_other
from broker.console.timeline import moments
from broker.ops import Refusal


async def search_form(request: web.Request) -> web.StreamResponse:
    """The field to paste an id into."""
    return render("trace.html", request, story=None, moments=(), problem=None)


async def search(request: web.Request) -> web.StreamResponse:
    """By POST, so that a CPR number pasted by mistake is in no address and no history. It is not shown again."""
    pasted = form_of(request).get("id", "").strip()
    try:
        return see_other(request, f"/trace/{UUID(pasted)}")
    except ValueError:
        problem = "this is no id: ids are of the form 01234567-89ab-cdef-0123-456789abcdef"
        return render("trace.html", request, status=422, story=None, moments=(), problem=problem)


async def detail(request: web.Request) -> web.StreamResponse:
    """The story of a requestId, reportId or letter id. Redirects to the replay if it is the id of one."""
    any_id, operations = id_in(request), request.app[OPERATIONS]
    try:
        found = await operations.stories.whole(any_id)
    except Refusal:
        if await _is_a_replay(operations, any_id):
            return see_other(request, f"/replays/{any_id}")
        raise
    return render("trace.html", request, story=found, moments=moments(found), problem=None, any_id=any_id)


async def _is_a_replay(operations: ops.Operations, any_id: UUID) -> bool:
    try:
        await operations.replays.one(any_id)
    except Refusal:
        return False
    return True


def id_in(request: web.Request, name: str = "id") -> UUID:
    """The id in the address. Raises HTTPNotFound."""
    try:
        return UUID(request.match_info[name])
    except ValueError:
        raise web.HTTPNotFound from None
