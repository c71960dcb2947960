"""The web application: its routes, headers and error page. The pages load nothing from other hosts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp_jinja2
import jinja2
from aiohttp import web

from sandbox.jobnet.citizen_pages import CitizenPages
from sandbox.jobnet.danish import form, row, when
from sandbox.jobnet.inboxes import MASKED
from sandbox.jobnet.report_pages import ReportPages
from sandbox.jobnet.request_store import RequestStore, Unknown
from sandbox.jobnet.sandbox_client import SandboxClient
from sandbox.jobnet.try_pages import TryPages

HERE = Path(__file__).parent
MAX_FORM = 32 * 1024
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(store: RequestStore, sandbox_client: SandboxClient) -> web.Application:
    """All pages: those of citizens in Danish, those of the sandbox in English."""
    app = web.Application(middlewares=[guarded, with_error_page], client_max_size=MAX_FORM)
    environment = aiohttp_jinja2.setup(
        app,
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"when": when, "form": form, "row": row}
    environment.globals |= {"masked": MASKED}
    app.add_routes(
        [
            *CitizenPages(store, sandbox_client).routes(),
            *ReportPages(store).routes(),
            *TryPages(sandbox_client).routes(),
            web.static("/static", HERE / "static"),
        ]
    )
    return app


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse forms from other sites, and add the security headers to every response."""
    if request.method == "POST" and not _is_same_site(request):
        raise web.HTTPForbidden(text="This form did not come from a page of this Jobnet.")
    answer: web.StreamResponse
    try:
        answer = await handler(request)
    except web.HTTPException as other:  # a redirect or an error
        answer = other
    for name, value in HEADERS.items():
        answer.headers.setdefault(name, value)
    if isinstance(answer, web.HTTPException):
        raise answer
    return answer


def _is_same_site(request: web.Request) -> bool:
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or origin == f"{request.scheme}://{request.host}"


@web.middleware
async def with_error_page(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer unknown addresses with the page not_there.html."""
    try:
        return await handler(request)
    except (Unknown, web.HTTPNotFound):
        values: dict[str, Any] = {"citizen": None}
        return aiohttp_jinja2.render_template("not_there.html", request, values, status=404)
