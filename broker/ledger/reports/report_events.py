"""Outcome events of reports: the scheduler takes those that are due, publishes them, marks them sent.

docs/contract.md#outcome-events.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from broker.ledger.model import EVENT_LEASE
from broker.ledger.postgres.connections import Pool
from broker.ledger.reports.report_model import DueReportEvent
from schemas.codes import ReportKind

TAKE_EVENTS = """
UPDATE reports SET event_due_at = ledger_now() + $2::interval
WHERE report_id IN (
    SELECT report_id FROM reports WHERE event_due_at <= (SELECT ledger_now())
    ORDER BY event_due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING report_id, state AS outcome, kind, request_id, type, error_code, jobcenter_code, supplier, cause,
    coalesce(discarded_at, settled_at) AS occurred_at
"""

# Only while the lease runs: a later end of the same report, after a replay, is due at once and has its own event.
EVENT_SENT = """
UPDATE reports SET event_due_at = NULL
WHERE report_id = ANY($1::uuid[]) AND event_due_at > (SELECT ledger_now())
"""


class ReportEvents:
    """`ledger.reports.events`. Raises LedgerAway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def due(self, limit: int) -> list[DueReportEvent]:
        """Lease the ends of reports that are due; each is due again after EVENT_LEASE unless it is marked sent."""
        rows = await self._pool.run(lambda connection: connection.fetch(TAKE_EVENTS, limit, EVENT_LEASE))
        return [DueReportEvent(**{**row, "kind": ReportKind(row["kind"])}) for row in rows]

    async def mark_sent(self, report_ids: Iterable[UUID]) -> None:
        ids = list(report_ids)
        await self._pool.run(lambda connection: connection.execute(EVENT_SENT, ids))
