"""The span of each try that is sent to an external system. The system gets the traceparent of this span."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from broker.clients.calls import Call
from broker.clients.classify import CallResult, NoAnswer
from broker.telemetry.tracing import TRACING, SpanKind

SendCall = Callable[[Call[Any], dict[str, str], float], Awaitable[CallResult]]


def calling(system: str, exchange: SendCall) -> SendCall:
    """Wrap `exchange` in a span. With tracing off it is returned unchanged, at no cost."""
    if not TRACING.on:
        return exchange

    async def traced(call: Call[Any], headers: dict[str, str], seconds: float) -> CallResult:
        parent = headers.get("traceparent")
        with TRACING.span(f"{call.step} {system}", kind=SpanKind.CLIENT, parent=parent) as span:
            result = await exchange(call, headers | {"traceparent": span.traceparent}, seconds)
            span.note(system=system, step=call.step, method=call.method)
            if isinstance(result, NoAnswer):
                span.failed(result.what)
            else:
                span.note(http_status=result.status)
                if result.status is None or result.status >= 400:
                    span.failed(f"status {result.status}")
            return result

    return traced
