"""A person's word to a supplier's lane: pause it, let it go on."""

from __future__ import annotations

from aiohttp import web

from broker import ops
from broker.console.context import DESK, actor, render, see_other

PAUSE = "Nothing is handed over to this supplier until its lane is resumed; what is being delivered ends."
RESUME = "A paused lane goes on; a parked one lets a report go as a probe at once."


async def ask_pause(request: web.Request) -> web.StreamResponse:
    """What pausing means, and the reason."""
    return await _ask(request, "Pause", PAUSE)


async def ask_resume(request: web.Request) -> web.StreamResponse:
    """What resuming means, and the reason."""
    return await _ask(request, "Resume", RESUME)


async def pause(request: web.Request) -> web.StreamResponse:
    """Do it, and show the lane."""
    supplier = request.match_info["supplier"]
    lane = await ops.pause(request.app[DESK], supplier, actor(request))
    return see_other(request, "/suppliers", f"The lane of {supplier} is {lane.state}.")


async def resume(request: web.Request) -> web.StreamResponse:
    """Do it, and show the lane."""
    supplier = request.match_info["supplier"]
    lane = await ops.resume(request.app[DESK], supplier, actor(request))
    return see_other(request, "/suppliers", f"The lane of {supplier} is {lane.state}.")


async def _ask(request: web.Request, verb: str, meaning: str) -> web.StreamResponse:
    row = await ops.lane(request.app[DESK], request.match_info["supplier"])
    facts = {"state": row.lane.state.value, "waiting": row.waiting, "being delivered": row.delivering}
    return render(
        "act.html",
        request,
        title=f"{verb} the lane of {row.lane.supplier}",
        meaning=meaning,
        facts=facts,
        action=request.path,
        label=verb,
        kind="danger" if verb == "Pause" else "",
    )
