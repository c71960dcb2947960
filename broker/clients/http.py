"""The one way out: an external system over HTTP, with its own connections, cap, breaker and TLS.

It says what a try met (`HttpAnswer` or `NoAnswer`); `classify.py` judges, `tries.py` and the suppliers' lanes decide
about trying again, `wire.py` holds the connections. It follows no redirect, keeps no cookie, uses no proxy, and
unpacks no more than it may keep.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote, urlencode, urlsplit

from aiohttp import ClientError
from aiohttp.http import HttpProcessingError

from broker.clients.breaker import Breaker, CallHealth
from broker.clients.bulkhead import Bulkhead, CallRejected
from broker.clients.call_spans import calling
from broker.clients.calls import Call, Caller, CallKind, M, Reply
from broker.clients.classify import CallResult, Classified, HttpAnswer, NoAnswer, classify
from broker.clients.http_transport import HttpRequest, HttpTransport, RawResponse, TryProgress, lost
from broker.clients.retry_after import retry_after
from broker.clients.tls import Bearer, SetupProblem, tls_context
from broker.clients.tries import CallTries
from broker.clients.unpack import unpacked
from broker.errors import AtCapacity, CallFacts
from broker.telemetry.counters import COUNTERS
from config.sections import HttpLimits
from config.systems import SystemConfig

__all__ = ["Call", "CallKind", "Caller", "HttpSystem", "Reply"]


class HttpSystem:
    """One external system.

    `async with` it; after `retire` it closes by itself whenever nothing is in flight.
    """

    def __init__(self, name: str, config: SystemConfig, limits: HttpLimits) -> None:
        """Raises ValueError for a plain http address without `allow_http`."""
        scheme = urlsplit(config.base_url).scheme
        if scheme != "https" and not (scheme == "http" and config.allow_http):
            raise ValueError(f"{name}: base_url must be https, or http with allow_http")
        self.name = name
        self.config = config
        self.limits = limits
        self._tls: ssl.SSLContext | SetupProblem | None = None
        self._plain = scheme == "http"
        self._bearer = Bearer(config)
        self._gate = Bulkhead(
            limits.in_flight, limits.waiting, Breaker(limits.breaker_failures, limits.breaker_open_seconds)
        )
        self._base_path = urlsplit(config.base_url).path.rstrip("/")
        self._wire: HttpTransport | None = None
        self._send = calling(name, self._exchange)
        self._calls = 0
        self._retired = False

    async def __aenter__(self) -> Self:
        if not self._plain:
            try:
                self._tls = await asyncio.to_thread(tls_context, self.config)
            except SetupProblem as problem:
                # One system's broken file must not keep the broker from serving the others.
                self._tls = problem
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def call(self, call: Call[M], caller: Caller) -> Reply[M]:
        """Makes one call of the contract, retried inside the caller's time where that is safe (DESIGN 5).

        Raises Refused, Unavailable, Misconfigured, ContractBroken, Rejected, AtCapacity; for a create,
        accept or cancel also NotSent, and Unknown once it was sent and not answered as the contract says.
        """

        async def send(x_request_id: str, seconds: float) -> CallResult:
            return await self._send(call, caller.headers(x_request_id), seconds)

        self._calls += 1
        try:
            tries = CallTries(self.name, call, caller, gate=self._gate, limits=self.limits, send=send)
            return await tries.carry()
        finally:
            self._calls -= 1
            await self._close_if_idle()

    async def once(
        self, call: Call[M], headers: dict[str, str], *, after_unanswered: bool
    ) -> tuple[Classified[M], CallFacts]:
        """Exactly one try, for a caller that keeps its own retries, pauses and breaker: a supplier's lane.

        `after_unanswered`: this x-requestId was sent before, and nobody answered. Raises AtCapacity if the cap
        left no place in time.
        """
        self._calls += 1
        try:
            async with self._place(call.step):
                began = time.monotonic()
                met = await self._send(call, headers, self.limits.total_timeout_seconds)
        finally:
            self._calls -= 1
            await self._close_if_idle()
        judgement = classify(call, met, after_unanswered=after_unanswered)
        COUNTERS.called(self.name, call.step, judgement.verdict.name, time.monotonic() - began)
        return judgement, self._seen(call.step, judgement, began)

    def _seen(self, step: str, judgement: Classified[M], began: float) -> CallFacts:
        return CallFacts(
            self.name,
            step,
            judgement.what,
            status=judgement.status,
            fault=judgement.fault,
            milliseconds=round((time.monotonic() - began) * 1000),
            sent=judgement.sent,
            unanswered=judgement.unanswered,
        )

    @asynccontextmanager
    async def _place(self, step: str) -> AsyncIterator[None]:
        """A place under the cap; the breaker learns nothing, so it never opens."""
        try:
            place = await self._gate.enter(time.monotonic() + self.limits.total_timeout_seconds)
        except CallRejected as refusal:
            COUNTERS.turned_away[(self.name, refusal.what)] += 1
            raise AtCapacity(CallFacts(self.name, step, refusal.what, sent=False)) from None
        try:
            yield
        finally:
            self._gate.leave(place, CallHealth.NEITHER)

    async def retire(self) -> None:
        """No new work comes here.

        Calls in flight end as they would, and a handler that began here may go on.
        """
        self._retired = True
        await self._close_if_idle()

    async def _close_if_idle(self) -> None:
        if self._retired and not self._calls:
            await self.close()

    @property
    def closed(self) -> bool:
        """Whether it has no connections."""
        return self._wire is None

    async def close(self) -> None:
        """Cuts what is in flight."""
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.close()

    def _open(self) -> HttpTransport:
        """The connections; a retired system opens them again for a handler that is still at work."""
        if self._wire is None:
            if isinstance(self._tls, SetupProblem):
                raise self._tls
            self._wire = HttpTransport(self.config.base_url, self._tls, self.limits)
        return self._wire

    async def _exchange(self, call: Call[M], headers: dict[str, str], seconds: float) -> CallResult:
        try:
            wire = self._open()
            if (authorization := self._bearer.header()) is not None:
                headers["Authorization"] = authorization
        except SetupProblem as problem:
            return NoAnswer(problem.what, connected=False, setup=True)
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        way = TryProgress()
        request = HttpRequest(call.method, self._target(call), headers, call.body)
        try:
            raw = await wire.exchange(request, seconds, way)
        except (TimeoutError, ClientError, HttpProcessingError) as error:
            return lost(error, way)
        return _answer(raw, self.limits.max_response_bytes)

    def _target(self, call: Call[M]) -> str:
        """The base address may have a path of its own; every value is encoded, also the + of an offset."""
        path = f"{self._base_path}{call.path}" or "/"
        return f"{path}?{urlencode(call.query, quote_via=quote, safe='')}" if call.query else path


def _answer(raw: RawResponse, limit: int) -> HttpAnswer:
    body, flaw = _body(raw, limit)
    kind = raw.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    wish = raw.headers.get("Retry-After")
    return HttpAnswer(raw.status, kind, body, flaw, retry_after(wish, datetime.now(UTC)) if wish else None)


def _body(raw: RawResponse, limit: int) -> tuple[bytes, str | None]:
    """The body, unpacked, at most `limit` bytes of it on the wire and in memory; or what is wrong with it."""
    if raw.status == 204:
        said = raw.headers.get("Content-Length", "0").strip() != "0"
        return b"", "body" if said or "Transfer-Encoding" in raw.headers else None
    if raw.body is None:
        return b"", "too-large"
    encoding = raw.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return raw.body, None
    return unpacked(raw.body, limit) if encoding in ("gzip", "x-gzip") else (b"", "encoding")
