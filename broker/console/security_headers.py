"""Security headers of every answer: no foreign or inline content, no caching, no framing."""

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
    # Not no-referrer: with it, browsers also omit the Origin of the console's own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Server": "jobnet-broker",
}


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Called when a response starts (on_response_prepare), so that streams and errors have the headers too."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    if settings_of(request).origin.startswith("https:"):
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
