"""The two cookies: one for the session, one for the login form. Never readable by scripts or sent by other sites."""

from __future__ import annotations

import hmac
import secrets

from aiohttp import web

from broker.console.context import settings_of
from config.console_section import ConsoleSettings

SESSION, LOGIN = "jobnet-session", "jobnet-login"
_PROCESS = secrets.token_bytes(32)


def cookie(settings: ConsoleSettings, name: str) -> str:
    """Its full name: over https, browsers take a `__Host-` cookie from this very host only."""
    return f"__Host-{name}" if settings.origin.startswith("https:") else name


def give(request: web.Request, response: web.StreamResponse, name: str, value: str) -> None:
    """Set it until the browser is closed; the session itself ends earlier."""
    settings = settings_of(request)
    response.set_cookie(
        cookie(settings, name),
        value,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=settings.origin.startswith("https:"),
    )


def take_away(request: web.Request, response: web.StreamResponse, name: str) -> None:
    """The browser forgets it."""
    settings = settings_of(request)
    response.del_cookie(
        cookie(settings, name),
        path="/",
        httponly=True,
        samesite="Strict",
        secure=settings.origin.startswith("https:"),
    )


def login_value(request: web.Request) -> str:
    """What the login form's cookie holds; empty when there is none."""
    return request.cookies.get(cookie(settings_of(request), LOGIN), "")


def login_token(request: web.Request, value: str) -> str:
    """The token of a login form for this cookie; one that nobody can send when there is no cookie."""
    if not value:
        return secrets.token_urlsafe(32)
    return hmac.digest(_PROCESS, value.encode(), "sha256").hex()
