"""Spans of a request: decorators that wrap a function in a span. With tracing off they return it unchanged, at no cost.

    frontend's span
    └── carry booking.book.v1      from sentAt to the acknowledgement
        ├── wait jobnet.bookings   in the queue
        ├── handle booking.book.v1
        │   └── create birk        each try of each call; its traceparent leaves with it (broker/clients/call_spans.py)
        └── report fyrtaarn        from the failure to the delivery (broker/reports/report_spans.py)
            └── attempt fyrtaarn
                └── fejlmelding fyrtaarn

A replayed message starts a trace of its own, with a link to the original one.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from broker.dead_letters.headers import LETTER_ID
from broker.rabbitmq import Arrival
from broker.telemetry.counters import OTHER, TYPES
from broker.telemetry.tracing import TRACING, SpanKind
from schemas.answers import Result
from schemas.codes import Status

Carry = Callable[[Arrival], Awaitable[None]]
HandlerCall = Callable[[Any, Any, Any], Awaitable[Result]]

LONGEST_WAIT = timedelta(hours=1)
"""A `sentAt` older than this, or in the future, is not used as the start of the span."""
WELL = (Status.DONE, Status.REFUSED)

_SENT_AT = re.compile(rb'"sentAt"\s*:\s*"([0-9T:.+Z-]{19,40})"')


def carrying(carry: Carry) -> Carry:
    """Wrap `carry` in the span of the whole request, a child of the frontend's span."""
    if not TRACING.on:
        return carry

    async def traced(arrival: Arrival) -> None:
        incoming = arrival.headers.get("traceparent")
        incoming = incoming if isinstance(incoming, str) else None
        replayed = LETTER_ID in arrival.headers
        (type_,) = TYPES.get(arrival.type or "", OTHER)
        began = _sent_at(arrival.body)
        with TRACING.span(
            f"carry {type_}",
            kind=SpanKind.CONSUMER,
            parent=None if replayed else incoming,
            link=incoming if replayed else None,
            began=began,
        ) as span:
            span.note(queue=arrival.queue, redelivered=arrival.redelivered or None, replayed=replayed or None)
            if began is not None:
                with TRACING.span(f"wait {arrival.queue}", began=began):
                    pass
            await carry(replace(arrival, headers={**arrival.headers, "traceparent": span.traceparent}))

    return traced


def _sent_at(body: bytes) -> datetime | None:
    """`sentAt` by the frontend's clock, read before validation; None if it is unusable."""
    found = _SENT_AT.search(body)
    try:
        sent_at = datetime.fromisoformat(found[1].decode()) if found else None
        now = datetime.now(UTC)
        return sent_at if sent_at and timedelta() <= now - sent_at < LONGEST_WAIT else None
    except (ValueError, TypeError):  # not a date, or a date without an offset
        return None


def end_span(outcome: str, request_id: UUID | None) -> None:
    """Note the outcome on the span of the current request."""
    if not TRACING.on:
        return
    span = TRACING.current()
    span.note(status=outcome, request_id=str(request_id) if request_id else None)
    if outcome not in WELL:
        span.failed(outcome)


def handling(handler: HandlerCall) -> HandlerCall:
    """Wrap a handler in a span, from its first call to its last."""
    if not TRACING.on:
        return handler

    async def traced(message: Any, caller: Any, clients: Any) -> Result:
        with TRACING.span(f"handle {message.TYPE}"):
            return await handler(message, caller, clients)

    return traced
