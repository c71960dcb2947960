"""How many reports stand where, whom something is still to be delivered to, and the outcome events that are due.

Clear columns only. Lists and stories for people are in stories.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from broker.ledger.model import EVENT_LEASE
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.reports.report_model import DueReportEvent, ReportState
from schemas.codes import ReportKind

COUNTS = """
SELECT supplier, state, CASE WHEN state IN ('dead', 'discarded') THEN cause END AS cause,
    count(*) AS reports, sum(count) AS failures, count(*) FILTER (WHERE duplicate) AS duplicates
FROM reports GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""

OPEN_SUPPLIERS = """
SELECT DISTINCT supplier FROM reports WHERE state IN ('joining', 'waiting', 'handed', 'delivering')
"""

TAKE_EVENTS = """
UPDATE reports SET event_due_at = ledger_now() + $2::interval
WHERE report_id IN (
    SELECT report_id FROM reports WHERE event_due_at <= (SELECT ledger_now())
    ORDER BY event_due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING report_id, state AS outcome, kind, request_id, type, error_code, jobcenter_code, supplier, cause,
    coalesce(discarded_at, settled_at) AS occurred_at
"""

# Only what is leased: a later end of the same report is due, and has an event of its own.
EVENT_SENT = """
UPDATE reports SET event_due_at = NULL
WHERE report_id = ANY($1::uuid[]) AND event_due_at > (SELECT ledger_now())
"""


@dataclass(frozen=True, slots=True)
class ReportCount:
    """How many reports stand where, and for how many failures; the cause only of the dead and discarded."""

    supplier: str | None
    state: ReportState
    cause: str | None
    reports: int
    failures: int
    duplicates: int


class ReportLookups:
    """Short statements on the pool. All raise LedgerAway."""

    def __init__(self, lines: Pool) -> None:
        self._lines = lines

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(statement, *values)

        return await self._lines.run(work)

    async def counts(self) -> list[ReportCount]:
        rows = await self._fetch(COUNTS)
        return [ReportCount(**{**row, "state": ReportState(row["state"])}) for row in rows]

    async def open_suppliers(self) -> set[str]:
        return {row["supplier"] for row in await self._fetch(OPEN_SUPPLIERS)}

    async def events_due(self, limit: int) -> list[DueReportEvent]:
        rows = await self._fetch(TAKE_EVENTS, limit, EVENT_LEASE)
        return [DueReportEvent(**{**row, "kind": ReportKind(row["kind"])}) for row in rows]

    async def event_sent(self, report_ids: Iterable[UUID]) -> None:
        await self._fetch(EVENT_SENT, list(report_ids))
