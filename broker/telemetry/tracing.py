"""The only access to OpenTelemetry: the spans of this process, sent in batches by a thread (span_export.py).

Off until `start`. While it is off, `on` is False and the span modules return functions unwrapped. The queue of spans
is bounded: a span that does not fit is lost, and no request waits for the collector. Names and attributes are
constants of this project and ids: no personal data, no text from messages.
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
"""How long a stopping process waits until its last spans are sent."""
LAST_POLL_S = 0.02

_PROPAGATOR = TraceContextTextMapPropagator()
_next_id: ContextVar[int | None] = ContextVar("span_id", default=None)


class Span:
    """A running span. `traceparent` is passed to its children and to external systems."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        return _traceparent(self._span.get_span_context())

    def note(self, **facts: str | int | bool | None) -> None:
        """Set attributes, with the prefix `jobnet.`; None values are left out."""
        self._span.set_attributes(
            {f"jobnet.{name}": fact for name, fact in facts.items() if fact is not None}
        )

    def failed(self, word: str) -> None:
        """Mark the span as failed, with a constant word."""
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
        """Start tracing if an endpoint is configured. Call it before the objects that trace are created."""
        if settings.endpoint:
            # Imported here: the SDK is large, and without tracing it is not needed.
            from broker.telemetry.span_export import provider_for

            self._provider = provider_for(settings, _next_id)
            self._tracer = self._provider.get_tracer("broker")

    def stop(self) -> threading.Event:
        """Send the remaining spans on a daemon thread; the event is set when they are sent."""
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
        """A span: a child of the current span, else of `parent` (a traceparent), else the root of a new trace.

        `link` is the traceparent of another trace that led to this one; `span_id` is the id of the span, if others
        already refer to it as their parent.
        """
        has_parent = trace.get_current_span().get_span_context().is_valid
        linked = _span_context(link)
        token = _next_id.set(span_id)
        try:
            span = self._tracer.start_span(
                name,
                None if has_parent else _context(parent),
                kind,
                links=[trace.Link(linked)] if linked else None,
                start_time=int(began.timestamp() * 1e9) if began else None,
            )
        finally:
            _next_id.reset(token)
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield Span(span)

    @staticmethod
    def current() -> Span:
        """The current span; a span without effect if there is none."""
        return Span(trace.get_current_span())


TRACING = Tracing()
"""The tracing of this process."""


@asynccontextmanager
async def tracing(settings: TracingSettings) -> AsyncIterator[None]:
    """Tracing for the duration of the context. At its end the remaining spans are sent, for at most LAST_S."""
    TRACING.start(settings)
    try:
        yield
    finally:
        if TRACING.on:
            sent, until = TRACING.stop(), monotonic() + LAST_S
            while not sent.is_set() and monotonic() < until:  # noqa: ASYNC110 - the event is set by another thread
                await asyncio.sleep(LAST_POLL_S)


def child_of(traceparent: str | None, span_id: int) -> str | None:
    """The traceparent of the span with this id in the same trace."""
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
