"""What handlers find in the application and in a request, and how they answer."""

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

DESK = web.AppKey("desk", Operations)
SETTINGS = web.AppKey("settings", Settings)
SESSIONS = web.AppKey("sessions", Sessions)
PASSWORDS = web.AppKey("passwords", Passwords)
LINKS = web.AppKey("links", Links)
SESSION_OF = web.RequestKey("session", Session)
FORM_OF = web.RequestKey("form", dict[str, str])
LOGIN_TOKEN = web.RequestKey("login_token", str)
TOKEN = "token"  # noqa: S105  the name of a field
"""The field of every form that proves that we made it."""


@dataclass(frozen=True, slots=True)
class NavigationEntry:
    """An entry of the navigation."""

    title: str
    path: str
    needs: Right


NAVIGATION = web.AppKey("navigation", tuple[NavigationEntry, ...])
FILES = web.AppKey("files", dict[str, tuple[str, bytes]])


def settings_of(request: web.Request) -> ConsoleSettings:
    """The section `console`."""
    return request.app[SETTINGS].console


def session_of(request: web.Request) -> Session | None:
    """The session of this request, if somebody is logged in."""
    return request.get(SESSION_OF)


def who(request: web.Request) -> Session:
    """The user. The gate lets nobody reach a handler that needs a right without one."""
    session = session_of(request)
    if session is None:
        raise web.HTTPForbidden
    return session


def may(request: web.Request, right: Right) -> bool:
    """Whether the user has this right; pages ask it to offer only what would be allowed."""
    session = session_of(request)
    return session is not None and right in session.rights


def form(request: web.Request) -> dict[str, str]:
    """The fields of a POST, as the gate has read and checked them."""
    return request.get(FORM_OF) or {}


def actor(request: web.Request) -> Actor:
    """Who acts and the reason that was typed. Raises Refusal when there is none."""
    return Actor(who(request).name, form(request).get("reason", ""))


def render(template: str, request: web.Request, *, status: int = 200, **facts: Any) -> web.Response:
    """A page. The note of an act before is shown on it, once."""
    session = session_of(request)
    rights = session.rights if session else frozenset()
    note = session.note if session else None
    if session:
        session.note = None
    frame = {
        "session": session,
        "rights": rights,
        "places": [place for place in request.app[NAVIGATION] if place.needs in rights],
        "here": request.path,
        "token": session.token if session else request.get(LOGIN_TOKEN, ""),
        "note": note,
    }
    return aiohttp_jinja2.render_template(template, request, frame | facts, status=status)


def see_other(request: web.Request, path: str, note: str | None = None) -> web.Response:
    """After an act: go and look at `path`, where `note` is shown once."""
    session = session_of(request)
    if session and note:
        session.note = note
    return web.Response(status=303, headers={"Location": path})
