"""The operators' log: searchable, in pages."""

from __future__ import annotations

from aiohttp import web

from broker.console.context import OPERATIONS, render

PAGE = 50
FIELDS = ("actor", "action", "subject")


async def page(request: web.Request) -> web.StreamResponse:
    """Entries, newest first; `before` is the id of the last entry of the page before."""
    wanted = {name: request.query.get(name, "").strip()[:200] for name in FIELDS}
    before = request.query.get("before", "")
    entries = await request.app[OPERATIONS].log.entries(
        actor=wanted["actor"] or None,
        action=wanted["action"] or None,
        subject=wanted["subject"] or None,
        before=int(before) if before.isascii() and before.isdecimal() and len(before) < 10 else None,
        limit=PAGE + 1,
    )
    older = entries[PAGE - 1].id if len(entries) > PAGE else None
    return render("log.html", request, entries=entries[:PAGE], wanted=wanted, older=older, paged=bool(before))
