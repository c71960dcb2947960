"""Overview: are we healthy, in one glance."""

from __future__ import annotations

from aiohttp import web

from broker import ops
from broker.console.context import DESK, render


async def page(request: web.Request) -> web.StreamResponse:
    """Lanes and dead letters."""
    desk = request.app[DESK]
    return render("overview.html", request, lanes=await ops.lanes(desk), depths=await ops.depths(desk))
