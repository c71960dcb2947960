"""How connections to an external system are made, and what it means when one is lost.

With `http.py` the only door to aiohttp. aiohttp's own retries, cookies, proxies and unpacking are off here.
"""

from __future__ import annotations

import errno
import ssl
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp

from broker.clients.classify import Answered, Lost, Met
from broker.clients.tls import certificate_refused
from config.settings import HttpLimits

# Shorter than the idle timeouts of the usual servers (5 s and more): a connection that they are about to
# close would make a create Unknown for no reason.
KEEP_ALIVE_SECONDS = 4.0
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "jobnet-broker"}


@dataclass(slots=True)
class Way:
    """How far a try got; filled in by the traces of its session."""

    connected: bool = False
    fresh: bool = False


class Dropped(Exception):
    """A connection that broke after the request had left."""


async def _no_silent_retry(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """aiohttp repeats GET and DELETE by itself when a connection is lost; these two errors are how it
    notices.

    A repeated cancel would be a second effect that nobody knows of, so they are made into one that it does
    not know.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise Dropped from error


def new_session(tls: ssl.SSLContext | None, limits: HttpLimits) -> aiohttp.ClientSession:
    """A session that repeats, follows, keeps and unpacks nothing by itself; its cap is that of the limits."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=limits.in_flight, ssl=tls or True, keepalive_timeout=KEEP_ALIVE_SECONDS
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        trust_env=False,
        auto_decompress=False,
        # The total is `asyncio.timeout` around the whole try, so that one clock rules.
        timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect_timeout_seconds),
        trace_configs=[_tracing()],
        middlewares=(_no_silent_retry,),
    )


def _tracing() -> aiohttp.TraceConfig:
    """Marks the moment from which a try counts as sent (DESIGN 5: everything but a failure to connect)."""
    config = aiohttp.TraceConfig()
    config.on_connection_create_end.append(_created)
    config.on_connection_reuseconn.append(_reused)
    return config


async def _created(_session: Any, context: SimpleNamespace, _params: Any) -> None:
    context.trace_request_ctx.connected = context.trace_request_ctx.fresh = True


async def _reused(_session: Any, context: SimpleNamespace, _params: Any) -> None:
    context.trace_request_ctx.connected = True


def lost(error: Exception, way: Way) -> Met:
    """What an exception of a try says.

    It ends here: aiohttp's hold the address and, in places, what the other side wrote.
    """
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Lost("connect-timeout", connected=False)
    if isinstance(error, TimeoutError):
        return Lost("timeout" if way.connected else "connect-timeout", connected=way.connected)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        return _not_connected(error)
    if isinstance(error, aiohttp.ClientResponseError):
        return Answered(None, flaw="not-http")
    if way.fresh and certificate_refused(error.__cause__):
        # With TLS 1.3 the other side refuses our certificate after our first bytes, and reads none of them.
        return Lost("certificate", connected=False, setup=True)
    return Lost("reset", connected=way.connected)


def _not_connected(error: aiohttp.ClientError) -> Lost:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Lost("certificate", connected=False, setup=True)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Lost("dns", connected=False)
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        cause = error.os_error
        cut = isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        return Lost("certificate" if certificate_refused(error) else "tls", connected=False, setup=not cut)
    refused = isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno == errno.ECONNREFUSED
    return Lost("connect-refused" if refused else "connect-failed", connected=False)
