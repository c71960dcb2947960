"""How spans leave: OpenTelemetry's SDK with a bounded queue and a sender thread. Loaded only where tracing is on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextvars import ContextVar
from time import monotonic

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from broker import __version__
from broker.telemetry.log import get_logger
from config.health_sections import TracingSettings

log = get_logger("tracing")

SEND_TIMEOUT_S = 5.0
SEND_EVERY_S = 1.0
BATCH = 512
TELL_AGAIN_S = 60.0
"""A collector that is away is told of once a minute."""
ATTRIBUTES_MOST = 32
LINKS_MOST = 4


def provider_for(settings: TracingSettings, next_id: ContextVar[int | None]) -> TracerProvider:
    """Spans for this collector; `next_id` is the id of the next span where others named it before it was there."""
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.ratio)),
        resource=Resource(
            {
                "service.name": "jobnet-broker",
                "service.version": __version__,
                "service.instance.id": str(os.getpid()),
            }
        ),
        id_generator=_Ids(next_id),
        span_limits=SpanLimits(max_attributes=ATTRIBUTES_MOST, max_links=LINKS_MOST),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=SEND_TIMEOUT_S)
    provider.add_span_processor(
        BatchSpanProcessor(
            _Telling(exporter),
            max_queue_size=settings.queue_size,
            schedule_delay_millis=SEND_EVERY_S * 1000,
            max_export_batch_size=BATCH,
        )
    )
    return provider


class _Ids(RandomIdGenerator):
    """Random ids, but for a span that others named before it was there."""

    def __init__(self, next_id: ContextVar[int | None]) -> None:
        self._next_id = next_id

    def generate_span_id(self) -> int:
        return self._next_id.get() or super().generate_span_id()


class _Telling(SpanExporter):
    """Sends, and says once in a while that it does not work; what was not sent is lost. On the sender's thread."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._told_at = float("-inf")
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            self._tell(len(spans), type(error).__name__)
            return SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._tell(len(spans), "the collector did not take them")
        return result

    def _tell(self, lost: int, why: str) -> None:
        self._lost += lost
        if monotonic() - self._told_at > TELL_AGAIN_S:
            log.warning("spans-lost", count=self._lost, reason=why)
            self._told_at, self._lost = monotonic(), 0

    def shutdown(self) -> None:
        self._exporter.shutdown()
