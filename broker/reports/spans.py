"""Where this broker's spans begin and end: carrying with waiting in it, handling, reporting, attempting.

Each function takes what does the work and gives it back with a span around it; while tracing is off it gives back the
very same, so that nothing is paid for it. The calls themselves are in clients/traced.py.

    frontend's span
    └── carry booking.book.v1      from sentAt to the acknowledgement
        ├── wait jobnet.bookings   in the queue
        ├── handle booking.book.v1
        │   └── create birk        each try of each call; its traceparent leaves with it
        └── report fyrtaarn        from the failure to the delivery
            └── attempt fyrtaarn
                └── fejlmelding fyrtaarn

What a person replays is a trace of its own, with a link to where it came from.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from broker.clients import Systems
from broker.dead_letters.headers import LETTER_ID
from broker.lanes.decision import Dead, Delivered, Judgement
from broker.ledger import ReportClaim
from broker.rabbitmq import Arrival
from broker.telemetry.counters import OTHER, TYPES
from broker.telemetry.tracing import TRACING, Kind, child_of
from config.settings import Settings
from schemas.answers import Result
from schemas.codes import Status
from schemas.envelope import InvalidMessage
from schemas.reports import Report

Carry = Callable[[Arrival], Awaitable[None]]
Handler = Callable[[Any, Any, Any], Awaitable[Result]]
Attempt = Callable[[ReportClaim, Systems, Settings], Awaitable[Judgement]]

LONGEST_WAIT = timedelta(hours=1)
"""A `sentAt` that is older than this, or in the future, is not believed to be when the waiting began."""
WELL = (Status.DONE, Status.REFUSED)

_SENT_AT = re.compile(rb'"sentAt"\s*:\s*"([0-9T:.+Z-]{19,40})"')


def carrying(carry: Carry) -> Carry:
    """The whole way of one request, below the frontend's span."""
    if not TRACING.on:
        return carry

    async def traced(arrival: Arrival) -> None:
        theirs = arrival.headers.get("traceparent")
        theirs = theirs if isinstance(theirs, str) else None
        replayed = LETTER_ID in arrival.headers
        (type_,) = TYPES.get(arrival.type or "", OTHER)
        began = _sent_at(arrival.body)
        with TRACING.span(
            f"carry {type_}",
            kind=Kind.CONSUMER,
            parent=None if replayed else theirs,
            link=theirs if replayed else None,
            began=began,
        ) as span:
            span.note(queue=arrival.queue, redelivered=arrival.redelivered or None, replayed=replayed or None)
            if began is not None:
                with TRACING.span(f"wait {arrival.queue}", began=began):
                    pass
            await carry(replace(arrival, headers={**arrival.headers, "traceparent": span.traceparent}))

    return traced


def _sent_at(body: bytes) -> datetime | None:
    """When the frontend sent it, by its own clock; read loosely, before anything is checked."""
    found = _SENT_AT.search(body)
    try:
        sent_at = datetime.fromisoformat(found[1].decode()) if found else None
        now = datetime.now(UTC)
        return sent_at if sent_at and timedelta() <= now - sent_at < LONGEST_WAIT else None
    except (ValueError, TypeError):  # no date, or one without an offset
        return None


def ended(outcome: str, request_id: UUID | None) -> None:
    """How the request that is being carried here ended."""
    if not TRACING.on:
        return
    span = TRACING.current()
    span.note(status=outcome, request_id=str(request_id) if request_id else None)
    if outcome not in WELL:
        span.failed(outcome)


def handling(handler: Handler) -> Handler:
    """What the handler does, from its first call to its last."""
    if not TRACING.on:
        return handler

    async def traced(message: Any, caller: Any, clients: Any) -> Result:
        with TRACING.span(f"handle {message.TYPE}"):
            return await handler(message, caller, clients)

    return traced


def attempting(attempt: Attempt) -> Attempt:
    """One attempt at a report, below the report's span, which is told of when the report has come to its end."""
    if not TRACING.on:
        return attempt

    async def traced(claim: ReportClaim, systems: Systems, settings: Settings) -> Judgement:
        home = child_of(claim.traceparent, _span_id(claim))
        with TRACING.span(
            f"attempt {claim.supplier}",
            kind=Kind.CONSUMER,
            parent=None if claim.replayed else home,
            link=home if claim.replayed else None,
        ) as span:
            judgement = await attempt(claim, systems, settings)
            verdict = judgement.verdict
            span.note(
                report_id=str(claim.report_id),
                attempt=claim.attempt,
                probe=claim.probe or None,
                replayed=claim.replayed or None,
                verdict=type(verdict).__name__.lower(),
            )
            if not isinstance(verdict, Delivered):
                span.failed(verdict.cause)
        if isinstance(verdict, Delivered | Dead) and not claim.replayed:
            _reported(claim, verdict)
        return judgement

    return traced


def _span_id(claim: ReportClaim) -> int:
    """The report's span has an id that every process can tell before the span is there."""
    return int.from_bytes(claim.report_id.bytes[8:])


def _reported(claim: ReportClaim, verdict: Delivered | Dead) -> None:
    """The span of the whole report, from the failure that it tells of until now."""
    try:
        began = Report.from_json(claim.content).occurred_at
    except InvalidMessage:
        began = None
    with TRACING.span(
        f"report {claim.supplier}", parent=claim.traceparent, began=began, span_id=_span_id(claim)
    ) as span:
        span.note(report_id=str(claim.report_id), kind=claim.kind.value, attempts=claim.attempt)
        if isinstance(verdict, Dead):
            span.failed(verdict.cause)
