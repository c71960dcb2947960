"""Access checks before every handler: host name, session, the right named by the route, and a form token for acts.

What no route allows is refused.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from broker.console.context import (
    CURRENT_SESSION,
    POSTED_FORM,
    SESSIONS,
    SETTINGS,
    TOKEN,
    render,
    session_of,
    settings_of,
)
from broker.console.cookies import SESSION, cookie_name, login_cookie, login_token
from broker.console.rights import Right
from broker.console.session_store import Session
from broker.console.table import ROUTES, Open
from broker.telemetry.log import get_logger
from broker.telemetry.redaction import scrub
from config.console_section import ConsoleSettings

log = get_logger("console")
FORM = "application/x-www-form-urlencoded"
BACKGROUND_HEADER = "X-Refresh"
"""Sent by console.js when a page refreshes itself. Such requests do not keep a session alive."""


@web.middleware
async def check_access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raises the HTTP error of the first check that fails."""
    if request.match_info.http_exception is not None:
        raise request.match_info.http_exception
    route = request.app[ROUTES][request.match_info.route]
    _check_host(request)
    _refuse_personal_data(request)
    if session := _session(request, background=route.background or BACKGROUND_HEADER in request.headers):
        request[CURRENT_SESSION] = session
    if route.method != "GET":
        await _check_form(request)
    if not isinstance(route.needs, Open):
        if session_of(request) is None:
            return _login_required(request)
        _check_right(request, route.needs)
    return await handler(request)


def _check_host(request: web.Request) -> None:
    """Against DNS rebinding: a foreign host name may have been pointed at this address."""
    if request.host.lower() not in hosts(settings_of(request)):
        raise web.HTTPMisdirectedRequest(text="this is not the address of the console (console.url)")


def hosts(settings: ConsoleSettings) -> set[str]:
    """Host names that the console answers to."""
    own = urlsplit(settings.origin)
    if settings.url:
        return {own.netloc}
    return {own.netloc, *(f"{name}:{settings.port}" for name in ("localhost", "127.0.0.1", "[::1]"))}


def _refuse_personal_data(request: web.Request) -> None:
    """Browsers and proxies store addresses."""
    address = unquote_plus(request.path_qs)
    if scrub(address) != address:
        raise web.HTTPBadRequest(
            text="this address contains what looks like a CPR number; the request was not handled"
        )


def _session(request: web.Request, *, background: bool) -> Session | None:
    settings = settings_of(request)
    if settings.trusted_header:
        return _proxy_session(request, settings)
    secret = request.cookies.get(cookie_name(settings, SESSION), "")
    return request.app[SESSIONS].find(secret, background=background) if secret else None


def _proxy_session(request: web.Request, settings: ConsoleSettings) -> Session:
    if not is_trusted_proxy(request.remote, settings):
        log.warning("console-refused", reason="not from a trusted proxy")
        raise web.HTTPForbidden(
            text="this console can be reached through its proxy only (console.trusted_proxies)"
        )
    names = request.headers.getall(settings.trusted_header, [])
    user = settings.users.get(names[0]) if len(names) == 1 else None
    if user is None:
        log.warning("console-refused", reason="the proxy names an unknown user")
        raise web.HTTPForbidden(text="the user named by the proxy may not use this console (console.users)")
    return request.app[SESSIONS].proxy_session(names[0], user.roles)


def is_trusted_proxy(remote: str | None, settings: ConsoleSettings) -> bool:
    """Whether this address belongs to a trusted proxy."""
    try:
        address = ipaddress.ip_address(remote or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in ipaddress.ip_network(network) for network in settings.trusted_proxies)


async def _check_form(request: web.Request) -> None:
    settings = request.app[SETTINGS].console
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    same_origin = origin is not None and urlsplit(origin).netloc.lower() in hosts(settings)
    if (site is not None and site != "same-origin") or (origin is not None and not same_origin):
        raise _forged("it comes from another site")
    if site is None and origin is None:
        raise _forged("it does not say which page sent it")
    if request.content_type != FORM:
        raise web.HTTPUnsupportedMediaType(text="only forms are accepted")
    fields: Any = await request.post()
    form = {name: value for name, value in fields.items() if isinstance(value, str)}
    request[POSTED_FORM] = form
    session = session_of(request)
    token = session.token if session else login_token(request, login_cookie(request))
    if not hmac.compare_digest(form.get(TOKEN, "").encode(), token.encode()):
        raise _forged("its token does not belong to this session; load the page again")


def _forged(reason: str) -> web.HTTPForbidden:
    log.warning("console-refused", reason=reason)
    return web.HTTPForbidden(
        text=f"nothing was done: this form was not sent by a page of this console: {reason}"
    )


def _login_required(request: web.Request) -> web.Response:
    if request.method != "GET":
        raise web.HTTPForbidden(text="nothing was done: your session has ended; log in and do it again")
    login_path = f"/login?next={quote(request.path_qs, safe='/')}"
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        # After a link from another site the browser withholds the SameSite=Strict cookie. A page of the console that
        # redirects at once makes the browser send it.
        return render("again.html", request, login=login_path)
    return web.Response(status=303, headers={"Location": login_path})


def _check_right(request: web.Request, right: Right) -> None:
    session = session_of(request)
    if session is None or right not in session.rights:
        log.warning("console-refused", reason=f"no right to {right}")
        raise web.HTTPForbidden(text=f"none of your roles gives the right that this address needs: {right}")
