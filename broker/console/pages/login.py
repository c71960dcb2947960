"""Log in by password or by a one-time link, and log out."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from aiohttp import web

from broker.console.context import (
    DESK,
    LINKS,
    LOGIN_TOKEN,
    PASSWORDS,
    SESSIONS,
    form,
    render,
    see_other,
    session_of,
    settings_of,
    who,
)
from broker.console.cookies import LOGIN, SESSION, give, login_token, login_value, take_away
from broker.console.links import LinkRefused
from broker.console.passwords import TooMany
from broker.ops import Actor
from broker.telemetry.log import get_logger

log = get_logger("console")
WRONG = "this name and password do not belong together"


async def ask(request: web.Request) -> web.StreamResponse:
    """The login form; who is logged in goes on."""
    if session_of(request):
        return see_other(request, _onward(request.query.get("next", "")))
    return _form(request, "login.html", onward=_onward(request.query.get("next", "")))


async def log_in(request: web.Request) -> web.StreamResponse:
    """Name and password: the same work and the same answer for a wrong name and a wrong password."""
    _by_password(request)
    fields = form(request)
    name, onward = fields.get("name", "").strip().lower()[:200], _onward(fields.get("next", ""))
    try:
        user = await request.app[PASSWORDS].check(name, fields.get("password", ""))
    except TooMany as error:
        log.warning("console-login-refused", reason="too many attempts")
        response = _form(request, "login.html", 429, onward=onward, problem=str(error))
        response.headers["Retry-After"] = str(max(1, round(error.seconds)))
        return response
    if user is None:
        log.warning("console-login-refused", reason="wrong")
        return _form(request, "login.html", 401, onward=onward, problem=WRONG)
    return await _welcome(request, name, user.roles, "password", onward)


async def offer_link(request: web.Request) -> web.StreamResponse:
    """What a one-time link offers. Looking does not use it: programs that preview links only look."""
    _by_password(request)
    link = request.match_info["link"]
    try:
        offer = request.app[LINKS].look(link)
    except LinkRefused as refused:
        return _form(request, "login.html", 403, onward="/", problem=str(refused))
    return _form(request, "link.html", link=link, offer=offer)


async def take_link(request: web.Request) -> web.StreamResponse:
    """Use it up."""
    _by_password(request)
    try:
        offer = request.app[LINKS].take(form(request).get("link", ""))
    except LinkRefused as refused:
        log.warning("console-login-refused", reason="link")
        return _form(request, "login.html", 403, onward="/", problem=str(refused))
    return await _welcome(request, offer.name, offer.roles, "one-time link", "/")


async def log_out(request: web.Request) -> web.StreamResponse:
    """End the session."""
    request.app[SESSIONS].end(who(request).key)
    response = web.Response(status=303, headers={"Location": "/login"})
    take_away(request, response, SESSION)
    return response


def _by_password(request: web.Request) -> None:
    """Where a proxy says who is there, nobody logs in here."""
    if settings_of(request).trusted_header:
        raise web.HTTPNotFound


async def _welcome(
    request: web.Request, name: str, roles: tuple[str, ...], way: str, onward: str
) -> web.StreamResponse:
    by = Actor(name, f"{way}: {', '.join(roles)}")
    await request.app[DESK].log.note(by, "console.login", name)
    if before := session_of(request):
        request.app[SESSIONS].end(before.key)
    secret, _ = request.app[SESSIONS].begin(name, roles, way)
    log.info("console-login", actor=name, what=way, state=" ".join(roles))
    response = web.Response(status=303, headers={"Location": onward})
    give(request, response, SESSION, secret)
    take_away(request, response, LOGIN)
    return response


def _form(
    request: web.Request, template: str, status: int = 200, *, problem: str | None = None, **facts: object
) -> web.Response:
    value = login_value(request) or secrets.token_urlsafe(32)
    if not session_of(request):
        request[LOGIN_TOKEN] = login_token(request, value)
    response = render(template, request, status=status, problem=problem, **facts)
    give(request, response, LOGIN, value)
    return response


def _onward(wanted: str) -> str:
    """A path of ours, whatever was asked for."""
    parts = urlsplit(wanted) if wanted.isascii() and wanted.isprintable() and "\\" not in wanted else None
    ours = parts and not parts.scheme and not parts.netloc and wanted.startswith("/") and wanted[:2] != "//"
    return wanted if ours else "/"
