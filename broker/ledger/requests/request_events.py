"""Outcome events of requests that no message in flight publishes: the scheduler takes them, publishes, marks them sent.

docs/contract.md#outcome-events.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from broker.ledger.model import EVENT_LEASE, DueEvent
from broker.ledger.postgres.connections import Pool

TAKE_EVENTS = """
UPDATE requests SET event_due_at = clock_timestamp() + $2::interval
WHERE request_id IN (
    SELECT request_id FROM requests WHERE event_due_at <= clock_timestamp()
    ORDER BY event_due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING request_id, type, CASE state WHEN 'unverified' THEN 'unverified' ELSE status END AS outcome, reason,
    error_code, jobcenter_code, booking_system, supplier, corrected AS corrects_uncertain,
    coalesce(settled_at, uncertain_since) AS occurred_at
"""

EVENT_DUE = """
UPDATE requests SET event_due_at = clock_timestamp()
WHERE request_id = $1 AND state <> 'running' AND event_due_at IS NULL
"""

# Only while the lease runs: once it has expired, another process may have taken the event, or a newer outcome is due.
EVENTS_SENT = """
UPDATE requests SET event_due_at = NULL
WHERE request_id = ANY($1::uuid[]) AND event_due_at > clock_timestamp()
"""


class RequestEvents:
    """`ledger.events`. All raise LedgerAway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def due(self, limit: int) -> list[DueEvent]:
        """Lease events that are due; each is due again after EVENT_LEASE unless it is marked sent."""
        rows = await self._pool.run(lambda connection: connection.fetch(TAKE_EVENTS, limit, EVENT_LEASE))
        return [DueEvent(**row) for row in rows]

    async def make_due(self, request_id: UUID) -> None:
        """The event of a settled or uncertain request could not be published: the scheduler shall publish it."""
        await self._pool.run(lambda connection: connection.execute(EVENT_DUE, request_id))

    async def mark_sent(self, request_ids: Iterable[UUID]) -> None:
        ids = list(request_ids)
        await self._pool.run(lambda connection: connection.execute(EVENTS_SENT, ids))
