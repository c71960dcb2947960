"""Who is logged in at this console, for an admin; and the end of a session. They live in this process alone."""

from __future__ import annotations

from aiohttp import web

from broker.console.context import DESK, SESSIONS, actor, form, render, see_other, who
from broker.ops import Refusal


async def listed(request: web.Request) -> web.StreamResponse:
    """Everybody, the last seen first."""
    sessions = request.app[SESSIONS]
    rows = [(session, *sessions.age(session)) for session in sessions.live()]
    return render("sessions.html", request, rows=rows, own=who(request).key)


async def end(request: web.Request) -> web.StreamResponse:
    """End one; its user can log in again, unless the configuration says otherwise by then."""
    key, by = form(request).get("key", ""), actor(request)
    found = [session for session in request.app[SESSIONS].live() if session.key == key]
    if not found:
        raise Refusal("this session has ended already")
    await request.app[DESK].log.note(by, "console.end-session", found[0].name)
    request.app[SESSIONS].end(key)
    return see_other(request, "/sessions", f"The session of {found[0].name} is ended.")
