"""Spans of a report: each attempt, and the report as a whole. The tree is drawn in broker/requests/request_spans.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from broker.clients import Systems
from broker.lanes.decision import DeadLetter, Decision, Delivered
from broker.ledger.reports.report_model import ReportClaim
from broker.telemetry.tracing import TRACING, SpanKind, child_of
from config.settings import Settings
from schemas.envelope import InvalidMessage
from schemas.failure_reports import Report

Attempt = Callable[[ReportClaim, Systems, Settings], Awaitable[Decision]]


def attempting(attempt: Attempt) -> Attempt:
    """Wrap one attempt in a span below the report's span; the latter is sent when the report has ended."""
    if not TRACING.on:
        return attempt

    async def traced(claim: ReportClaim, systems: Systems, settings: Settings) -> Decision:
        home = child_of(claim.traceparent, _span_id(claim))
        with TRACING.span(
            f"attempt {claim.supplier}",
            kind=SpanKind.CONSUMER,
            parent=None if claim.replayed else home,
            link=home if claim.replayed else None,
        ) as span:
            decision = await attempt(claim, systems, settings)
            verdict = decision.verdict
            span.note(
                report_id=str(claim.report_id),
                attempt=claim.attempt,
                probe=claim.probe or None,
                replayed=claim.replayed or None,
                verdict=verdict.label,
            )
            if not isinstance(verdict, Delivered):
                span.failed(verdict.cause)
        if isinstance(verdict, Delivered | DeadLetter) and not claim.replayed:
            _reported(claim, verdict)
        return decision

    return traced


def _span_id(claim: ReportClaim) -> int:
    """The id of the report's span, derived from the report id, so that each process knows it in advance."""
    return int.from_bytes(claim.report_id.bytes[8:])


def _reported(claim: ReportClaim, verdict: Delivered | DeadLetter) -> None:
    """Send the span of the whole report, from its failure until now."""
    try:
        began = Report.from_json(claim.content).occurred_at
    except InvalidMessage:
        began = None
    with TRACING.span(
        f"report {claim.supplier}", parent=claim.traceparent, began=began, span_id=_span_id(claim)
    ) as span:
        span.note(report_id=str(claim.report_id), kind=claim.kind.value, attempts=claim.attempt)
        if isinstance(verdict, DeadLetter):
            span.failed(verdict.cause)
