"""The span of each try that leaves for an external system; its traceparent is the one that the system gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from broker.clients.calls import Call
from broker.clients.classify import CallResult, NoAnswer
from broker.telemetry.tracing import TRACING, SpanKind

SendCall = Callable[[Call[Any], dict[str, str], float], Awaitable[CallResult]]


def calling(system: str, exchange: SendCall) -> SendCall:
    """`exchange` with a span around it, or the very same while tracing is off."""
    if not TRACING.on:
        return exchange

    async def traced(call: Call[Any], headers: dict[str, str], seconds: float) -> CallResult:
        parent = headers.get("traceparent")
        with TRACING.span(f"{call.step} {system}", kind=SpanKind.CLIENT, parent=parent) as span:
            met = await exchange(call, headers | {"traceparent": span.traceparent}, seconds)
            span.note(system=system, step=call.step, method=call.method)
            if isinstance(met, NoAnswer):
                span.failed(met.what)
            else:
                span.note(http_status=met.status)
                if met.status is None or met.status >= 400:
                    span.failed(f"status {met.status}")
            return met

    return traced
