"""One request and its answer over a kept connection, on aiohttp's lower half: its connector and its parser.

aiohttp's client is used only here. It resolves names, connects, speaks TLS, keeps connections and parses answers. Its
ClientSession is left out: its cookies, redirects, proxies and silent repeats must not happen here, and it costs two
thirds of a call: 128 µs of CPU with it, 44 µs without (docs/adr/0011-calls-bypass-the-aiohttp-session.md).
"""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
import zlib
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
from aiohttp.http import HttpProcessingError, RawResponseMessage
from multidict import CIMultiDictProxy
from yarl import URL

from broker.clients.answer_protocol import AnswerConnector, AnswerProtocol
from broker.clients.classify import CallResult, HttpAnswer, NoAnswer
from broker.clients.kept_connections import KeptConnections
from broker.clients.tls import certificate_alert, tls_problem
from config.sections import HttpLimits

SWITCHING_PROTOCOLS, NO_CONTENT = 101, 204
_FIXED_HEADERS = "Accept: application/json\r\nAccept-Encoding: gzip\r\nUser-Agent: jobnet-broker\r\n"
_TARGET = re.compile(r"/[!-~]*")
_VALUE = re.compile(r"[\t -~\x80-\U0010ffff]*")
_BODILESS = frozenset({"GET", "HEAD"})


@dataclass(slots=True)
class HttpRequest:
    """A request. `target` is path and query, encoded. `alone`: on a connection that carried no other call before."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None
    alone: bool = False


class OtherRequestId(aiohttp.ClientError):
    """The system echoes `x-requestId`, and this answer has another one or none: it is not the answer to this call."""


@dataclass(slots=True)
class RawResponse:
    """A response, not classified. `body` is None when it was larger than the limit."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes | None


@dataclass(slots=True)
class TryProgress:
    """How far a try got. A try that was `connected` counts as sent (docs/architecture.md#outcomes)."""

    connected: bool = False
    # The connection was new.
    fresh: bool = False
    expired: bool = False

    def expire(self, transport: asyncio.Transport) -> None:
        """End the try at its timeout."""
        self.expired = True
        # Wakes the reader with an error.
        transport.abort()


class HttpTransport:
    """The connections to one base address. The bulkhead limits how many carry a call."""

    def __init__(self, system: str, base_url: str, tls: ssl.SSLContext | None, limits: HttpLimits) -> None:
        secure = tls or True
        # The connector only connects: it would give a kept connection to any call.
        self._connector = AnswerConnector(system, limit=0, ssl=secure)
        self._echoes = limits.echoes_request_id
        self._kept = KeptConnections(0.0 if self._echoes else limits.quiet_ms / 1000)
        # Tells the connector where to connect. It is never sent: `_bytes_of` writes the request.
        self._destination = aiohttp.ClientRequest(
            "GET", URL(base_url), loop=asyncio.get_running_loop(), ssl=secure
        )
        self._connect_s = limits.connect_timeout_seconds
        self._timeout = aiohttp.ClientTimeout(connect=self._connect_s)
        self._first_headers = f" HTTP/1.1\r\nHost: {self._destination.headers['Host']}\r\n{_FIXED_HEADERS}"
        self._max_body = limits.max_response_bytes

    async def close(self) -> None:
        """Close the connections; requests in flight are cut off."""
        self._kept.close()
        await self._connector.close()

    async def exchange(self, request: HttpRequest, seconds: float, progress: TryProgress) -> RawResponse:
        """Send once and read one answer, in `seconds` altogether. `progress` is updated on the way.

        Raises TimeoutError, aiohttp.ClientError, HttpProcessingError, or ValueError for an address or header value that
        HTTP cannot carry.
        """
        data = self._bytes_of(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        alone = request.alone and not self._echoes
        connection = None if alone else self._kept.take()
        progress.fresh = connection is None
        if connection is None:
            timeout = self._timeout if seconds >= self._connect_s else aiohttp.ClientTimeout(connect=seconds)
            connection = await self._connector.connect(self._destination, [], timeout)
        protocol, transport = connection.protocol, connection.transport
        # Bytes before our request are no answer to it.
        if not isinstance(protocol, AnswerProtocol) or transport is None or protocol.stray:
            connection.close()
            raise aiohttp.ServerDisconnectedError
        # A timer on the transport, because asyncio.timeout costs a sixth of the call.
        timer = loop.call_at(deadline, progress.expire, transport)
        try:
            progress.connected = True
            protocol.begin(skip_payload=request.method == "HEAD")
            transport.write(data)
            message, content = await self._read(protocol)
            protocol.end(loop.time())
            if self._echoes and message.headers.get("x-requestId") != request.headers.get("x-requestId"):
                raise OtherRequestId
        except BaseException:
            connection.close()
            raise
        finally:
            timer.cancel()
        if content is None or alone:
            connection.close()
        else:
            self._kept.keep(connection, protocol)
        return RawResponse(message.code, message.headers, content)

    def _bytes_of(self, request: HttpRequest) -> bytes:
        method, target, body = request.method, request.target, request.body
        lines = [method, " ", target, self._first_headers]
        for name, value in request.headers.items():
            if not _VALUE.fullmatch(value):
                raise ValueError(f"the header {name} holds a control character")
            lines += (name, ": ", value, "\r\n")
        if not _TARGET.fullmatch(target):
            raise ValueError("the address holds a space or a control character")
        if body is not None or method not in _BODILESS:
            lines += ("Content-Length: ", str(len(body or b"")), "\r\n")
        lines.append("\r\n")
        return "".join(lines).encode() + (body or b"")

    async def _read(self, protocol: AnswerProtocol) -> tuple[RawResponseMessage, bytes | None]:
        """The head and the body. The body is None if it is over the limit; the connection must then be closed."""
        message, payload = await protocol.read()
        while 100 <= message.code < 200 and message.code != SWITCHING_PROTOCOLS:
            message, payload = await protocol.read()
        chunk: bytes = await payload.readany()
        if payload.at_eof():
            return message, chunk if len(chunk) <= self._max_body else None
        content = bytearray(chunk)
        while len(content) <= self._max_body and not payload.at_eof():
            content += await payload.readany()
        return message, bytes(content) if len(content) <= self._max_body else None


def body_of(raw: RawResponse, limit: int) -> tuple[bytes, str | None]:
    """The decompressed body and None, or nothing and the reason, as a word for `HttpAnswer.flaw`.

    At most `limit` bytes, both compressed and decompressed.
    """
    if raw.status == NO_CONTENT:
        # It has no body, whatever its headers say: Flask and Django label it text/html, others announce a length.
        return b"", None
    if raw.body is None:
        return b"", "too-large"
    encoding = raw.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return raw.body, None
    return decompressed(raw.body, limit) if encoding in ("gzip", "x-gzip") else (b"", "encoding")


def decompressed(packed: bytes, limit: int) -> tuple[bytes, str | None]:
    """A gzip body as `body_of` returns it, without ever holding more than `limit` + 1 bytes of it."""
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    with suppress(zlib.error):
        body = decoder.decompress(packed, limit + 1)
        if len(body) > limit:
            return b"", "too-large"
        if decoder.eof and not decoder.unused_data:
            return body, None
    return b"", "encoding"


def result_of(error: Exception, progress: TryProgress) -> CallResult:
    """The result of a try that ended with this exception."""
    # The exception itself is dropped: aiohttp's hold the address and, in places, text from the other side.
    if isinstance(error, TimeoutError) or progress.expired:
        connected = progress.connected
        return NoAnswer("timeout" if connected else "connect-timeout", connected=connected)
    if isinstance(error, OtherRequestId):
        return NoAnswer("other-request-id", connected=True)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        return _not_connected(error)
    if isinstance(error, HttpProcessingError):
        return HttpAnswer(None, flaw="not-http")
    if progress.fresh and (alert := certificate_alert(error)):
        # With TLS 1.3 the server refuses our certificate after our first bytes, and reads none of them.
        return NoAnswer(alert, connected=False, setup=True)
    return NoAnswer("reset", connected=progress.connected)


def _not_connected(error: aiohttp.ClientError) -> NoAnswer:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return NoAnswer(tls_problem(error.certificate_error), connected=False, setup=True)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return NoAnswer("dns", connected=False)
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        cause = error.os_error
        cut = isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        return NoAnswer(certificate_alert(error) or "tls", connected=False, setup=not cut)
    refused = isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno == errno.ECONNREFUSED
    return NoAnswer("connect-refused" if refused else "connect-failed", connected=False)
