"""The stylesheet, the scripts and the icon, served from memory."""

from __future__ import annotations

from aiohttp import web

from broker.console.context import FILES


async def file(request: web.Request) -> web.StreamResponse:
    """One static file."""
    stored = request.app[FILES].get(request.match_info["name"])
    if stored is None:
        raise web.HTTPNotFound
    kind, content = stored
    headers = {"Cache-Control": "no-cache"}
    return web.Response(body=content, content_type=kind, charset="utf-8", headers=headers)
