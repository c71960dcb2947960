"""The sessions of this console process, for admins: list them and end one."""

from __future__ import annotations

from aiohttp import web

from broker.console.context import OPERATIONS, SESSIONS, actor_of, form_of, render, see_other, user_of
from broker.ops import Refusal


async def listing(request: web.Request) -> web.StreamResponse:
    """All sessions, the most recently active first."""
    sessions = request.app[SESSIONS]
    rows = [(session, *sessions.age(session)) for session in sessions.live()]
    return render("sessions.html", request, rows=rows, own=user_of(request).key)


async def end(request: web.Request) -> web.StreamResponse:
    """End a session. Its user can log in again, unless the settings have changed."""
    key, actor = form_of(request).get("key", ""), actor_of(request)
    found = [session for session in request.app[SESSIONS].live() if session.key == key]
    if not found:
        raise Refusal("this session has ended already")
    await request.app[OPERATIONS].log.note(actor, "console.end-session", found[0].name)
    request.app[SESSIONS].end(key)
    return see_other(request, "/sessions", f"The session of {found[0].name} has ended.")
