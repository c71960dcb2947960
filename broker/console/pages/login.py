"""Login by password or by a one-time link, and logout."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from aiohttp import web

from broker.console.context import (
    LINKS,
    LOGIN_TOKEN,
    OPERATIONS,
    PASSWORDS,
    SESSIONS,
    form_of,
    render,
    see_other,
    session_of,
    settings_of,
    user_of,
)
from broker.console.cookies import LOGIN, SESSION, delete_cookie, login_cookie, login_token, set_cookie
from broker.console.links import LinkRefused
from broker.console.passwords import TooMany
from broker.ops import Actor
from broker.telemetry.log import get_logger

log = get_logger("console")
WRONG = "the name or the password is wrong"


async def login_form(request: web.Request) -> web.StreamResponse:
    """The login form; redirects users who are already logged in."""
    if session_of(request):
        return see_other(request, _safe_path(request.query.get("next", "")))
    return _form(request, "login.html", onward=_safe_path(request.query.get("next", "")))


async def log_in(request: web.Request) -> web.StreamResponse:
    """Login by name and password. A wrong name and a wrong password get the same answer, after the same work."""
    _refuse_behind_proxy(request)
    fields = form_of(request)
    name, onward = fields.get("name", "").strip().lower()[:200], _safe_path(fields.get("next", ""))
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
    return await _start_session(request, name, user.roles, "password", onward)


async def link_form(request: web.Request) -> web.StreamResponse:
    """Show what a one-time link offers. A GET does not use it up, because mail and chat programs preview links."""
    _refuse_behind_proxy(request)
    link = request.match_info["link"]
    try:
        offer = request.app[LINKS].verify(link)
    except LinkRefused as refused:
        return _form(request, "login.html", 403, onward="/", problem=str(refused))
    return _form(request, "link.html", link=link, offer=offer)


async def redeem_link(request: web.Request) -> web.StreamResponse:
    """Log in by a one-time link and use it up."""
    _refuse_behind_proxy(request)
    try:
        offer = request.app[LINKS].redeem(form_of(request).get("link", ""))
    except LinkRefused as refused:
        log.warning("console-login-refused", reason="link")
        return _form(request, "login.html", 403, onward="/", problem=str(refused))
    return await _start_session(request, offer.name, offer.roles, "one-time link", "/")


async def log_out(request: web.Request) -> web.StreamResponse:
    """End the user's own session."""
    request.app[SESSIONS].end(user_of(request).key)
    response = web.Response(status=303, headers={"Location": "/login"})
    delete_cookie(request, response, SESSION)
    return response


def _refuse_behind_proxy(request: web.Request) -> None:
    """Raises HTTPNotFound if a proxy names the users: then there is no login here."""
    if settings_of(request).trusted_header:
        raise web.HTTPNotFound


async def _start_session(
    request: web.Request, name: str, roles: tuple[str, ...], method: str, onward: str
) -> web.StreamResponse:
    actor = Actor(name, f"{method}: {', '.join(roles)}")
    await request.app[OPERATIONS].log.note(actor, "console.login", name)
    if before := session_of(request):
        request.app[SESSIONS].end(before.key)
    secret, _ = request.app[SESSIONS].begin(name, roles, method)
    log.info("console-login", actor=name, what=method, state=" ".join(roles))
    response = web.Response(status=303, headers={"Location": onward})
    set_cookie(request, response, SESSION, secret)
    delete_cookie(request, response, LOGIN)
    return response


def _form(
    request: web.Request, template: str, status: int = 200, *, problem: str | None = None, **facts: object
) -> web.Response:
    value = login_cookie(request) or secrets.token_urlsafe(32)
    if not session_of(request):
        request[LOGIN_TOKEN] = login_token(request, value)
    response = render(template, request, status=status, problem=problem, **facts)
    set_cookie(request, response, LOGIN, value)
    return response


def _safe_path(wanted: str) -> str:
    """The wanted path if it is a path of this console, else `/`: no redirects to other sites."""
    parts = urlsplit(wanted) if wanted.isascii() and wanted.isprintable() and "\\" not in wanted else None
    local = parts and not parts.scheme and not parts.netloc and wanted.startswith("/") and wanted[:2] != "//"
    return wanted if local else "/"
