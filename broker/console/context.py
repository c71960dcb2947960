"""Used by all handlers: keys of the application and the request, the current user, and functions that answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiohttp_jinja2
from aiohttp import web

from broker.console.links import Links
from broker.console.passwords import Passwords
from broker.console.rights import Right
from broker.console.session_store import Session, Sessions
from broker.ops import Actor, Operations
from config.console_section import ConsoleSettings
from config.settings import Settings

OPERATIONS = web.AppKey("operations", Operations)
SETTINGS = web.AppKey("settings", Settings)
SESSIONS = web.AppKey("sessions", Sessions)
PASSWORDS = web.AppKey("passwords", Passwords)
LINKS = web.AppKey("links", Links)
CURRENT_SESSION = web.RequestKey("session", Session)
POSTED_FORM = web.RequestKey("form", dict[str, str])
LOGIN_TOKEN = web.RequestKey("login_token", str)
TOKEN = "token"  # noqa: S105  the name of a field
"""Name of the form field that holds the session's token against forged requests."""


@dataclass(frozen=True, slots=True)
class NavigationEntry:
    """One link in the navigation, shown to users with the right `needs`."""

    title: str
    path: str
    needs: Right


NAVIGATION = web.AppKey("navigation", tuple[NavigationEntry, ...])
FILES = web.AppKey("files", dict[str, tuple[str, bytes]])


def settings_of(request: web.Request) -> ConsoleSettings:
    """The section `console` of the settings."""
    return request.app[SETTINGS].console


def session_of(request: web.Request) -> Session | None:
    """The session of this request, or None if nobody is logged in."""
    return request.get(CURRENT_SESSION)


def user_of(request: web.Request) -> Session:
    """The session of the logged-in user. Raises HTTPForbidden if there is none."""
    session = session_of(request)
    if session is None:
        raise web.HTTPForbidden
    return session


def form_of(request: web.Request) -> dict[str, str]:
    """The fields of a POST, read and checked by access.py."""
    return request.get(POSTED_FORM) or {}


def actor_of(request: web.Request) -> Actor:
    """The user and the reason in the form. Raises Refusal if the reason is empty, too long or has a CPR number."""
    return Actor(user_of(request).name, form_of(request).get("reason", ""))


def render(template: str, request: web.Request, *, status: int = 200, **facts: Any) -> web.Response:
    """A page. It shows the note left by `see_other`, once."""
    session = session_of(request)
    rights = session.rights if session else frozenset()
    note = session.note if session else None
    if session:
        session.note = None
    common = {
        "session": session,
        "rights": rights,
        "navigation": [entry for entry in request.app[NAVIGATION] if entry.needs in rights],
        "here": request.path,
        "token": session.token if session else request.get(LOGIN_TOKEN, ""),
        "note": note,
    }
    return aiohttp_jinja2.render_template(template, request, common | facts, status=status)


def see_other(request: web.Request, path: str, note: str | None = None) -> web.Response:
    """Redirect after an act (303). The page at `path` shows `note` once."""
    session = session_of(request)
    if session and note:
        session.note = note
    return web.Response(status=303, headers={"Location": path})
