"""The door to OpenTelemetry: the spans of this process, sent in batches by a thread of their own (spans_out.py).

Off until it is started; then `on` is False, and whoever would trace binds what it wraps as it is. The queue of spans is
bounded, what does not fit is lost, and nobody waits for a collector. Names and attributes are words of ours and ids:
never anything personal, never text from outside.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from config.health_sections import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SpanKind = trace.SpanKind

LAST_S = 3.0
"""How long a stopping process waits for its last spans to be sent."""
LAST_POLL_S = 0.02

_PROPAGATOR = TraceContextTextMapPropagator()
_next_id: ContextVar[int | None] = ContextVar("span_id", default=None)


class Span:
    """A span that is going on. `traceparent` is what its children and the outside get."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        return _traceparent(self._span.get_span_context())

    def note(self, **facts: str | int | bool | None) -> None:
        """Attributes, with `jobnet.` before their names; None says nothing."""
        self._span.set_attributes(
            {f"jobnet.{name}": fact for name, fact in facts.items() if fact is not None}
        )

    def failed(self, word: str) -> None:
        """It did not go well; a word of ours says how."""
        self._span.set_status(trace.StatusCode.ERROR, word)


class Tracing:
    """The spans of one process."""

    def __init__(self) -> None:
        self._provider: TracerProvider | None = None
        self._tracer: trace.Tracer = trace.NoOpTracer()

    @property
    def on(self) -> bool:
        return self._provider is not None

    def start(self, settings: TracingSettings) -> None:
        """From now on there are spans, if there is an endpoint. To be called before what traces is built."""
        if settings.endpoint:
            from broker.telemetry.span_export import (
                provider_for,  # a lot to load for nothing where tracing is off
            )

            self._provider = provider_for(settings, _next_id)
            self._tracer = self._provider.get_tracer("broker")

    def stop(self) -> threading.Event:
        """Send what is left, on a thread that nobody has to wait for; the event says that it is done."""
        sent = threading.Event()
        provider, self._provider, self._tracer = self._provider, None, trace.NoOpTracer()

        def send() -> None:
            if provider is not None:
                provider.shutdown()
            sent.set()

        threading.Thread(target=send, name="last spans", daemon=True).start()
        return sent

    @contextmanager
    def span(
        self,
        name: str,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        parent: str | None = None,
        link: str | None = None,
        began: datetime | None = None,
        span_id: int | None = None,
    ) -> Iterator[Span]:
        """A span below the one that is going on here, else below `parent` (a traceparent), else a trace of its own.

        `link` names another trace that this one goes back to; `span_id` one that others already call their parent.
        """
        inside = trace.get_current_span().get_span_context().is_valid
        goes_back_to = _span_context(link)
        token = _next_id.set(span_id)
        try:
            span = self._tracer.start_span(
                name,
                None if inside else _context(parent),
                kind,
                links=[trace.Link(goes_back_to)] if goes_back_to else None,
                start_time=int(began.timestamp() * 1e9) if began else None,
            )
        finally:
            _next_id.reset(token)
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield Span(span)

    @staticmethod
    def current() -> Span:
        """The span that is going on here; one that does nothing if there is none."""
        return Span(trace.get_current_span())


TRACING = Tracing()
"""This process's."""


@asynccontextmanager
async def tracing(settings: TracingSettings) -> AsyncIterator[None]:
    """Spans while it lasts; at its end what is left is sent, which takes LAST_S at most, whatever the collector does."""
    TRACING.start(settings)
    try:
        yield
    finally:
        if TRACING.on:
            sent, until = TRACING.stop(), monotonic() + LAST_S
            while not sent.is_set() and monotonic() < until:  # noqa: ASYNC110 - it happens in another thread
                await asyncio.sleep(LAST_POLL_S)


def child_of(traceparent: str | None, span_id: int) -> str | None:
    """The traceparent of a span with this id in the same trace."""
    context = _span_context(traceparent)
    if context is None:
        return None
    return _traceparent(trace.SpanContext(context.trace_id, span_id, True, context.trace_flags))


def _traceparent(context: trace.SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _context(traceparent: str | None) -> Context | None:
    return _PROPAGATOR.extract({"traceparent": traceparent}, Context()) if traceparent else None


def _span_context(traceparent: str | None) -> trace.SpanContext | None:
    context = _context(traceparent)
    found = trace.get_current_span(context).get_span_context() if context is not None else None
    return found if found is not None and found.is_valid else None
