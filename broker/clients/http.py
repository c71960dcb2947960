"""An external system over HTTP, with its own connections, bulkhead, circuit breaker and TLS.

All calls to external systems go through here. `http_transport.py` sends and receives, `classify.py` classifies the
result, `tries.py` and the suppliers' lanes decide about retries. Redirects, cookies and proxies are not supported.
"""

from __future__ import annotations

import asyncio
import math
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Self
from urllib.parse import quote, urlencode, urlsplit

from aiohttp import ClientError
from aiohttp.http import HttpProcessingError

from broker.clients.breaker import Breaker, CallHealth
from broker.clients.bulkhead import Bulkhead, CallRejected
from broker.clients.call_spans import calling
from broker.clients.calls import Call, Caller, CallKind, M, Reply
from broker.clients.classify import CallResult, Classified, HttpAnswer, NoAnswer, classify
from broker.clients.http_transport import (
    HttpRequest,
    HttpTransport,
    RawResponse,
    TryProgress,
    body_of,
    result_of,
)
from broker.clients.tls import Bearer, SetupProblem, fingerprint, tls_context
from broker.clients.tries import CallTries
from broker.errors import AtCapacity, CallFacts
from broker.telemetry.counters import COUNTERS
from broker.telemetry.log import get_logger
from config.sections import HttpLimits
from config.systems import SystemConfig

log = get_logger("clients")

DAY_SECONDS = 86_400.0

__all__ = ["Call", "CallKind", "Caller", "HttpSystem", "Reply"]


class HttpSystem:
    """One external system, an async context manager. After `retire` it closes itself when no call is in flight."""

    def __init__(self, name: str, config: SystemConfig, limits: HttpLimits) -> None:
        """Raises ValueError for a plain http address without `allow_http`."""
        scheme = urlsplit(config.base_url).scheme
        if scheme != "https" and not (scheme == "http" and config.allow_http):
            raise ValueError(f"{name}: base_url must be https, or http with allow_http")
        self.name = name
        self.config = config
        self.limits = limits
        self._tls: ssl.SSLContext | SetupProblem | None = None
        self._files: tuple[str, ...] = ()
        self._plain = scheme == "http"
        self._bearer = Bearer(config)
        self._bulkhead = Bulkhead(
            limits.in_flight, limits.waiting, Breaker(limits.breaker_failures, limits.breaker_open_seconds)
        )
        self._base_path = urlsplit(config.base_url).path.rstrip("/")
        self._transport: HttpTransport | None = None
        self._send = calling(name, self._exchange)
        self._calls = 0
        self._retired = False

    async def __aenter__(self) -> Self:
        if not self._plain:
            try:
                # The hashes first: a file that changes in between is then read again at the next reload.
                self._files = await asyncio.to_thread(fingerprint, self.config)
                self._tls = await asyncio.to_thread(tls_context, self.config)
            except SetupProblem as problem:
                # One system's unreadable file must not stop the calls to the others: `_open` raises it.
                self._tls = problem
        return self

    @property
    def setup_problem(self) -> SetupProblem | None:
        """Why its TLS files cannot be used, if so: each call then raises Misconfigured."""
        return self._tls if isinstance(self._tls, SetupProblem) else None

    async def is_built_from(self, config: SystemConfig) -> bool:
        """Whether it was built from this configuration and from the files as they are now."""
        if self.config != config or self.setup_problem is not None:
            return False
        return self._plain or self._files == await asyncio.to_thread(fingerprint, config)

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def call(self, call: Call[M], caller: Caller) -> Reply[M]:
        """Make one call of the contract, with retries before `caller.answer_by` where a repetition is safe.

        See docs/architecture.md#retries. Raises Refused, Unavailable, Misconfigured, ContractBroken, Rejected,
        AtCapacity; for a create, accept or cancel also NotSent, and Unknown if it was sent and got no answer that the
        contract allows.
        """

        async def send(x_request_id: str, seconds: float) -> CallResult:
            return await self._send(call, caller.headers(x_request_id), seconds)

        self._calls += 1
        try:
            tries = CallTries(self.name, call, caller, bulkhead=self._bulkhead, limits=self.limits, send=send)
            return await tries.run()
        finally:
            self._calls -= 1
            await self._close_if_idle()

    async def call_once(
        self, call: Call[M], headers: dict[str, str], *, after_unanswered: bool
    ) -> tuple[Classified[M], CallFacts]:
        """Make exactly one try, for a caller with its own retries, pauses and breaker: a supplier's lane.

        `after_unanswered`: an earlier try with this x-requestId was sent and got no answer. Raises AtCapacity if no
        slot was free in time.
        """
        self._calls += 1
        try:
            async with self._slot(call.step):
                began = time.monotonic()
                result = await self._send(call, headers, self.limits.total_timeout_seconds)
        finally:
            self._calls -= 1
            await self._close_if_idle()
        classified = classify(call, result, after_unanswered=after_unanswered)
        COUNTERS.called(self.name, call.step, classified.call_class.name, time.monotonic() - began)
        return classified, self._facts(call.step, classified, began)

    def _facts(self, step: str, classified: Classified[M], began: float) -> CallFacts:
        return CallFacts(
            self.name,
            step,
            classified.what,
            status=classified.status,
            fault=classified.fault,
            milliseconds=round((time.monotonic() - began) * 1000),
            sent=classified.sent,
            unanswered=classified.unanswered,
        )

    @asynccontextmanager
    async def _slot(self, step: str) -> AsyncIterator[None]:
        """A slot of the bulkhead. The breaker is told no results, so it never opens."""
        try:
            admission = await self._bulkhead.acquire(time.monotonic() + self.limits.total_timeout_seconds)
        except CallRejected as rejected:
            COUNTERS.turned_away[(self.name, rejected.what)] += 1
            raise AtCapacity(CallFacts(self.name, step, rejected.what, sent=False)) from None
        try:
            yield
        finally:
            self._bulkhead.release(admission, CallHealth.NEITHER)

    async def retire(self) -> None:
        """Close when no call is in flight. A handler that still holds this system may make further calls."""
        self._retired = True
        await self._close_if_idle()

    async def _close_if_idle(self) -> None:
        if self._retired and not self._calls:
            await self.close()

    @property
    def closed(self) -> bool:
        """Whether it has no connections."""
        return self._transport is None

    async def close(self) -> None:
        """Close the connections; calls in flight are cut off."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    def _open(self) -> HttpTransport:
        """The connections. Also a retired system opens them, for a handler that still uses it. Raises SetupProblem."""
        if self._transport is None:
            if isinstance(self._tls, SetupProblem):
                raise self._tls
            self._transport = HttpTransport(self.name, self.config.base_url, self._tls, self.limits)
        return self._transport

    async def _exchange(self, call: Call[M], headers: dict[str, str], seconds: float) -> CallResult:
        try:
            transport = self._open()
            if (authorization := self._bearer.header()) is not None:
                headers["Authorization"] = authorization
        except SetupProblem as problem:
            return NoAnswer(problem.what, connected=False, setup=True)
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        progress = TryProgress()
        request = HttpRequest(call.method, self._target(call), headers, call.body, call.alone)
        try:
            raw = await transport.exchange(request, seconds, progress)
        except (TimeoutError, ClientError, HttpProcessingError) as error:
            return result_of(error, progress)
        answer = _answer(raw, self.limits.max_response_bytes)
        if answer.retry_after is not None and answer.retry_after > DAY_SECONDS:
            log.warning("retry-after-over-a-day", system=self.name, step=call.step, status=answer.status)
        return answer

    def _target(self, call: Call[M]) -> str:
        """Path and query. The base address may have a path too; every value is encoded, also the + of an offset."""
        path = f"{self._base_path}{call.path}" or "/"
        return f"{path}?{urlencode(call.query, quote_via=quote, safe='')}" if call.query else path


def _answer(raw: RawResponse, limit: int) -> HttpAnswer:
    body, flaw = body_of(raw, limit)
    content_type = raw.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    pause = None
    if "Retry-After" in raw.headers:
        pause = retry_after(", ".join(raw.headers.getall("Retry-After")), datetime.now(UTC))
    return HttpAnswer(raw.status, content_type, body, flaw, pause)


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header in either form (RFC 9110, 10.2.3); None without one.

    Never negative; math.inf for a text that cannot be read: the other side wants a pause, and too long is safer than
    too short. Its reader bounds it. `now` must be aware.
    """
    text = (value or "").strip()
    if not text or _NEGATIVE.fullmatch(text):
        return None
    if _NUMBERS.fullmatch(text):
        return max(float(number) for number in text.split(","))
    at = _date(text)
    return math.inf if at is None else max(0.0, (at - now).total_seconds())


_NUMBER = r"\+?[0-9]+(\.[0-9]+)?"
# Several headers are read as one list (RFC 9110, 5.2), and its largest number counts.
_NUMBERS = re.compile(rf"{_NUMBER}(\s*,\s*{_NUMBER})*")
_NEGATIVE = re.compile(r"-[0-9]+(\.[0-9]+)?")


def _date(text: str) -> datetime | None:
    """The date of HTTP or of ISO 8601, or None."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            at = read(text)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None
