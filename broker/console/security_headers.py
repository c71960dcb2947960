"""What every answer says to the browser: nothing from outside, nothing inline, nothing kept, nobody frames it."""

from __future__ import annotations

from aiohttp import web

from broker.console.context import settings_of

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with that, browsers hide the Origin of our own forms too.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Server": "jobnet-broker",
}


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """A signal, so that streams and errors have them too."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    if settings_of(request).origin.startswith("https:"):
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
