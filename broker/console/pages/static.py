"""The stylesheet, the script and the icon, out of memory."""

from __future__ import annotations

from aiohttp import web

from broker.console.context import FILES


async def file(request: web.Request) -> web.StreamResponse:
    """One of the files beside the templates."""
    found = request.app[FILES].get(request.match_info["name"])
    if found is None:
        raise web.HTTPNotFound
    kind, content = found
    headers = {"Cache-Control": "no-cache"}
    return web.Response(body=content, content_type=kind, charset="utf-8", headers=headers)
