"""The one way into every handler: the right host, a known user, the right that the row names, and for an act the
proof that it comes from a page of ours. What no row allows is refused.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from broker.console.context import (
    FORM_OF,
    SESSION_OF,
    SESSIONS,
    SETTINGS,
    TOKEN,
    render,
    session_of,
    settings_of,
)
from broker.console.cookies import SESSION, cookie, login_token, login_value
from broker.console.rights import Right
from broker.console.session_store import Session
from broker.console.table import ROWS, Open
from broker.telemetry.log import get_logger
from broker.telemetry.redaction import scrub
from config.console_section import ConsoleSettings

log = get_logger("console")
FORM = "application/x-www-form-urlencoded"
QUIETLY = "X-Refresh"
"""A header that our script sends: a page that renews itself is no sign of life of its user."""


@web.middleware
async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raises the HTTP errors that say which check failed."""
    if request.match_info.http_exception is not None:
        raise request.match_info.http_exception
    row = request.app[ROWS][request.match_info.route]
    _at_our_address(request)
    _nothing_personal_in(request)
    if session := _session(request, quietly=row.quiet or QUIETLY in request.headers):
        request[SESSION_OF] = session
    if row.method != "GET":
        await _from_a_page_of_ours(request)
    if not isinstance(row.needs, Open):
        if session_of(request) is None:
            return _to_the_login(request)
        _allowed(request, row.needs)
    return await handler(request)


def _at_our_address(request: web.Request) -> None:
    """Only under our own name: another site's name may have been pointed at this address."""
    if request.host.lower() not in hosts(settings_of(request)):
        raise web.HTTPMisdirectedRequest(text="this is not the address of the console (console.url)")


def hosts(settings: ConsoleSettings) -> set[str]:
    """The names under which browsers may ask."""
    own = urlsplit(settings.origin)
    if settings.url:
        return {own.netloc}
    return {own.netloc, *(f"{name}:{settings.port}" for name in ("localhost", "127.0.0.1", "[::1]"))}


def _nothing_personal_in(request: web.Request) -> None:
    """Addresses are kept by browsers and proxies."""
    address = unquote_plus(request.path_qs)
    if scrub(address) != address:
        raise web.HTTPBadRequest(text="this address holds what looks like a CPR number; it was not looked at")


def _session(request: web.Request, *, quietly: bool) -> Session | None:
    settings = settings_of(request)
    if settings.trusted_header:
        return _named_by_the_proxy(request, settings)
    secret = request.cookies.get(cookie(settings, SESSION), "")
    return request.app[SESSIONS].find(secret, quietly=quietly) if secret else None


def _named_by_the_proxy(request: web.Request, settings: ConsoleSettings) -> Session:
    if not from_a_proxy(request.remote, settings):
        log.warning("console-refused", reason="not from a trusted proxy")
        raise web.HTTPForbidden(
            text="this console is reached through its proxy only (console.trusted_proxies)"
        )
    names = request.headers.getall(settings.trusted_header, [])
    user = settings.users.get(names[0]) if len(names) == 1 else None
    if user is None:
        log.warning("console-refused", reason="the proxy names no user of ours")
        raise web.HTTPForbidden(text="the proxy names nobody who may use this console (console.users)")
    return request.app[SESSIONS].of_proxy(names[0], user.roles)


def from_a_proxy(remote: str | None, settings: ConsoleSettings) -> bool:
    """Whether this address is one of the trusted proxies."""
    try:
        address = ipaddress.ip_address(remote or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in ipaddress.ip_network(each) for each in settings.trusted_proxies)


async def _from_a_page_of_ours(request: web.Request) -> None:
    settings = request.app[SETTINGS].console
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    same = origin is not None and urlsplit(origin).netloc.lower() in hosts(settings)
    if (site is not None and site != "same-origin") or (origin is not None and not same):
        raise _forged("it comes from another site")
    if site is None and origin is None:
        raise _forged("it does not say which page it comes from")
    if request.content_type != FORM:
        raise web.HTTPUnsupportedMediaType(text="only forms are taken")
    fields: Any = await request.post()
    form = {name: value for name, value in fields.items() if isinstance(value, str)}
    request[FORM_OF] = form
    session = session_of(request)
    wanted = session.token if session else login_token(request, login_value(request))
    if not hmac.compare_digest(form.get(TOKEN, "").encode(), wanted.encode()):
        raise _forged("its token is not of this session; load the page again")


def _forged(why: str) -> web.HTTPForbidden:
    log.warning("console-refused", reason=why)
    return web.HTTPForbidden(
        text=f"nothing was done: this form was not sent by a page of this console: {why}"
    )


def _to_the_login(request: web.Request) -> web.Response:
    if request.method != "GET":
        raise web.HTTPForbidden(text="nothing was done: your session has ended; log in and do it again")
    login = f"/login?next={quote(request.path_qs, safe='/')}"
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        # A link from elsewhere: the browser keeps our cookie back, and sends it when a page of ours asks.
        return render("again.html", request, login=login)
    return web.Response(status=303, headers={"Location": login})


def _allowed(request: web.Request, right: Right) -> None:
    session = session_of(request)
    if session is None or right not in session.rights:
        log.warning("console-refused", reason=f"no right to {right}")
        raise web.HTTPForbidden(text=f"none of your roles gives the right that this needs: {right}")
