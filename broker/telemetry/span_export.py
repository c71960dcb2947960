"""Export of spans with OpenTelemetry's SDK: a bounded queue and a sender thread. Imported only if tracing is on."""

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
LOG_AGAIN_S = 60.0
"""Lost spans are logged at most once a minute."""
ATTRIBUTES_MOST = 32
LINKS_MOST = 4


def provider_for(settings: TracingSettings, next_id: ContextVar[int | None]) -> TracerProvider:
    """The tracer provider for the configured collector; `next_id` is the span id for the next span, if it is fixed."""
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
            _LoggingExporter(exporter),
            max_queue_size=settings.queue_size,
            schedule_delay_millis=SEND_EVERY_S * 1000,
            max_export_batch_size=BATCH,
        )
    )
    return provider


class _Ids(RandomIdGenerator):
    """Random ids, except for a span whose id was given to others before it started."""

    def __init__(self, next_id: ContextVar[int | None]) -> None:
        self._next_id = next_id

    def generate_span_id(self) -> int:
        return self._next_id.get() or super().generate_span_id()


class _LoggingExporter(SpanExporter):
    """Exports spans and logs lost ones; spans that cannot be sent are lost. Runs on the sender thread."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._logged_at = float("-inf")
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            self._log_lost(len(spans), type(error).__name__)
            return SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._log_lost(len(spans), "the collector refused them")
        return result

    def _log_lost(self, lost: int, why: str) -> None:
        self._lost += lost
        if monotonic() - self._logged_at > LOG_AGAIN_S:
            log.warning("spans-lost", count=self._lost, reason=why)
            self._logged_at, self._lost = monotonic(), 0

    def shutdown(self) -> None:
        self._exporter.shutdown()
