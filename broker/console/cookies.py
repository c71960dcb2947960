"""The two cookies: session and login form. Both are HttpOnly and SameSite=Strict."""

from __future__ import annotations

import hmac
import secrets

from aiohttp import web

from broker.console.context import settings_of
from config.console_section import ConsoleSettings

SESSION, LOGIN = "jobnet-session", "jobnet-login"
_LOGIN_KEY = secrets.token_bytes(32)
"""Signs login tokens; new in each process."""


def cookie_name(settings: ConsoleSettings, name: str) -> str:
    """The full name. Over https it starts with `__Host-`: browsers accept such a cookie from this host only."""
    return f"__Host-{name}" if settings.origin.startswith("https:") else name


def set_cookie(request: web.Request, response: web.StreamResponse, name: str, value: str) -> None:
    """Set a cookie that lasts until the browser closes; the session itself ends earlier."""
    settings = settings_of(request)
    response.set_cookie(
        cookie_name(settings, name),
        value,
        path="/",
        httponly=True,
        samesite="Strict",
        secure=settings.origin.startswith("https:"),
    )


def delete_cookie(request: web.Request, response: web.StreamResponse, name: str) -> None:
    """Tell the browser to delete a cookie."""
    settings = settings_of(request)
    response.del_cookie(
        cookie_name(settings, name),
        path="/",
        httponly=True,
        samesite="Strict",
        secure=settings.origin.startswith("https:"),
    )


def login_cookie(request: web.Request) -> str:
    """The value of the login form's cookie; empty if there is none."""
    return request.cookies.get(cookie_name(settings_of(request), LOGIN), "")


def login_token(request: web.Request, value: str) -> str:
    """The form token for this login cookie. Without a cookie: a random token, which no form can match."""
    if not value:
        return secrets.token_urlsafe(32)
    return hmac.digest(_LOGIN_KEY, value.encode(), "sha256").hex()
