"""One request and its answer over a kept connection, on aiohttp's lower half: its connector and its parser.

The only door to aiohttp's client. aiohttp connects, resolves, speaks TLS, keeps connections and parses answers;
what its ClientSession puts on top (cookies, redirects, proxies, tracing, unpacking, its own silent repeats) is what
we must not have, and costs two thirds of a call: 128 µs of CPU with it, 44 µs without
(docs/adr/0011-lower-half-of-aiohttp.md).
"""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
from dataclasses import dataclass
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, RawResponseMessage
from multidict import CIMultiDictProxy
from yarl import URL

from broker.clients.classify import CallResult, HttpAnswer, NoAnswer
from broker.clients.tls import certificate_refused
from config.sections import HttpLimits

# Shorter than the idle timeouts of the usual servers (5 s and more): a connection that they are about to
# close would make a create Unknown for no reason.
KEEP_ALIVE_SECONDS = 4.0
READ_BUFFER_BYTES = 65_536
SWITCHING_PROTOCOLS = 101
_ALWAYS = "Accept: application/json\r\nAccept-Encoding: gzip\r\nUser-Agent: jobnet-broker\r\n"
_TARGET = re.compile(r"/[!-~]*")
_VALUE = re.compile(r"[\t -~\x80-\U0010ffff]*")
_BODILESS = frozenset({"GET", "HEAD"})


@dataclass(slots=True)
class HttpRequest:
    """What leaves. `target` is path and query, encoded."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None


@dataclass(slots=True)
class RawResponse:
    """What came back, unjudged. `body` is None when there was more of it than may be kept."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes | None


@dataclass(slots=True)
class TryProgress:
    """How far a try got: what counts as sent is everything but a failure to connect (DESIGN 5)."""

    connected: bool = False
    fresh: bool = False
    expired: bool = False

    def expire(self, transport: asyncio.Transport) -> None:
        """The time is over: whoever reads from this transport is woken by its end."""
        self.expired = True
        transport.abort()


class HttpTransport:
    """The connections to one base address, at most `limits.in_flight` of them."""

    def __init__(self, base_url: str, tls: ssl.SSLContext | None, limits: HttpLimits) -> None:
        secure = tls or True
        self._connector = aiohttp.TCPConnector(
            limit=limits.in_flight, ssl=secure, keepalive_timeout=KEEP_ALIVE_SECONDS
        )
        # Only says whom to connect to; what leaves is written below.
        self._whom = aiohttp.ClientRequest("GET", URL(base_url), loop=asyncio.get_running_loop(), ssl=secure)
        self._connect_s = limits.connect_timeout_seconds
        self._timeout = aiohttp.ClientTimeout(connect=self._connect_s)
        self._head = f" HTTP/1.1\r\nHost: {self._whom.headers['Host']}\r\n{_ALWAYS}"
        self._most = limits.max_response_bytes
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def close(self) -> None:
        """Cuts what is in flight."""
        await self._connector.close()

    async def exchange(self, request: HttpRequest, seconds: float, way: TryProgress) -> RawResponse:
        """Send once, read one answer, in so many seconds altogether; `way` says how far it got.

        Raises TimeoutError, aiohttp.ClientError, HttpProcessingError, or ValueError for what HTTP cannot carry.
        """
        sent = self._bytes_of(request)
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        limit = self._timeout if seconds >= self._connect_s else aiohttp.ClientTimeout(connect=seconds)
        connection = await self._connector.connect(self._whom, [], limit)
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            connection.close()
            raise aiohttp.ServerDisconnectedError
        # A timer of our own, on the transport: asyncio.timeout costs a sixth of the call.
        timer = loop.call_at(until, way.expire, transport)
        try:
            way.connected, way.fresh = True, protocol not in self._used
            self._used.add(protocol)
            protocol.set_response_params(
                skip_payload=request.method == "HEAD",
                read_until_eof=True,
                auto_decompress=False,
                read_bufsize=READ_BUFFER_BYTES,
            )
            transport.write(sent)
            message, kept = await self._read(protocol)
        except BaseException:
            connection.close()
            raise
        finally:
            timer.cancel()
        connection.close() if kept is None else connection.release()
        return RawResponse(message.code, message.headers, kept)

    def _bytes_of(self, request: HttpRequest) -> bytes:
        method, target, body = request.method, request.target, request.body
        lines = [method, " ", target, self._head]
        for name, value in request.headers.items():
            if not _VALUE.fullmatch(value):
                raise ValueError(f"the header {name} would hold a control character")
            lines += (name, ": ", value, "\r\n")
        if not _TARGET.fullmatch(target):
            raise ValueError("an address with a blank or a control character in it")
        if body is not None or method not in _BODILESS:
            lines += ("Content-Length: ", str(len(body or b"")), "\r\n")
        lines.append("\r\n")
        return "".join(lines).encode() + (body or b"")

    async def _read(self, protocol: ResponseHandler) -> tuple[RawResponseMessage, bytes | None]:
        """The head, and the body up to the limit: None for more, and then the connection is of no more use."""
        message, payload = await protocol.read()
        while 100 <= message.code < 200 and message.code != SWITCHING_PROTOCOLS:
            message, payload = await protocol.read()
        chunk: bytes = await payload.readany()
        if payload.at_eof():
            return message, chunk if len(chunk) <= self._most else None
        kept = bytearray(chunk)
        while len(kept) <= self._most and not payload.at_eof():
            kept += await payload.readany()
        return message, bytes(kept) if len(kept) <= self._most else None


def lost(error: Exception, way: TryProgress) -> CallResult:
    """What an exception of a try says.

    It ends here: aiohttp's hold the address and, in places, what the other side wrote.
    """
    if isinstance(error, TimeoutError) or way.expired:
        return NoAnswer("timeout" if way.connected else "connect-timeout", connected=way.connected)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        return _not_connected(error)
    if isinstance(error, HttpProcessingError):
        return HttpAnswer(None, flaw="not-http")
    if way.fresh and certificate_refused(error):
        # With TLS 1.3 the other side refuses our certificate after our first bytes, and reads none of them.
        return NoAnswer("certificate", connected=False, setup=True)
    return NoAnswer("reset", connected=way.connected)


def _not_connected(error: aiohttp.ClientError) -> NoAnswer:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return NoAnswer("certificate", connected=False, setup=True)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return NoAnswer("dns", connected=False)
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        cause = error.os_error
        cut = isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        return NoAnswer(
            "certificate" if certificate_refused(error) else "tls", connected=False, setup=not cut
        )
    refused = isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno == errno.ECONNREFUSED
    return NoAnswer("connect-refused" if refused else "connect-failed", connected=False)
