"""What can be read from the ledger without claiming anything, and the outcome events that are due.

Clear columns only: a person at a terminal learns what happened to a request, never whose it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from broker.ledger.model import EVENT_LEASE, DueEvent, State, Story, WorkerRow
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.postgres.sealed import FieldSealer
from schemas.personal import Cpr

FIND_MOST = 1000

STORY = [name for name in Story.__slots__ if name != "state"]
TRACE = f"SELECT state, {', '.join(STORY)} FROM requests WHERE request_id = $1"

FIND = """
SELECT request_id FROM requests JOIN unnest($1::bytea[], $2::text[]) AS wanted (token, key)
    ON citizen_token = wanted.token AND citizen_key = wanted.key
ORDER BY created_at DESC LIMIT $3
"""

OPEN_SYSTEMS = """
SELECT DISTINCT kind, name FROM requests
CROSS JOIN LATERAL (VALUES ('planner', planner), ('booking', booking_system), ('supplier', supplier))
    AS system (kind, name)
WHERE state IN ('running', 'uncertain')
"""

OPEN_REQUESTS = """
SELECT request_id AS id, state, created_at FROM requests
WHERE state IN ('running', 'uncertain') AND $1 IN (planner, booking_system, supplier)
UNION ALL
SELECT report_id, state, created_at FROM reports
WHERE state IN ('joining', 'waiting', 'handed', 'delivering') AND supplier = $1
ORDER BY created_at LIMIT $2
"""
OPEN_MOST = 100

WORKERS = """
SELECT id, pid, started_at, heartbeat_at, unbroken_since, ready, stopped_at, host, expected, consuming, problem,
    stopped_at IS NULL AND heartbeat_at >= clock_timestamp() - $1::interval AS alive
FROM workers ORDER BY started_at
"""

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

# A lease that ran out is somebody else's, or a newer outcome's: only our own is cleared.
EVENTS_SENT = """
UPDATE requests SET event_due_at = NULL
WHERE request_id = ANY($1::uuid[]) AND event_due_at > clock_timestamp()
"""


class Lookups:
    """Short statements on the pool. All raise LedgerAway."""

    def __init__(self, threshold: timedelta, lines: Pool, safe: FieldSealer) -> None:
        self._threshold = threshold
        self._lines = lines
        self._safe = safe

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(statement, *values)

        return await self._lines.run(work)

    async def trace(self, request_id: UUID) -> Story | None:
        rows = await self._fetch(TRACE, request_id)
        return Story(**{**rows[0], "state": State(rows[0]["state"])}) if rows else None

    async def find(self, cpr: Cpr) -> list[UUID]:
        tokens = self._safe.citizen_tokens(cpr)
        digests, keys = [token.digest for token in tokens], [token.key_id for token in tokens]
        return [row["request_id"] for row in await self._fetch(FIND, digests, keys, FIND_MOST)]

    async def open_systems(self) -> set[tuple[str, str]]:
        return {(row["kind"], row["name"]) for row in await self._fetch(OPEN_SYSTEMS) if row["name"]}

    async def open_requests(self, system: str) -> list[tuple[UUID, str]]:
        """The oldest open requests and reports that need this system, at most 100."""
        rows = await self._fetch(OPEN_REQUESTS, system, OPEN_MOST)
        return [(row["id"], row["state"]) for row in rows]

    async def workers(self) -> list[WorkerRow]:
        return [WorkerRow(**row) for row in await self._fetch(WORKERS, self._threshold)]

    async def events_due(self, limit: int) -> list[DueEvent]:
        return [DueEvent(**row) for row in await self._fetch(TAKE_EVENTS, limit, EVENT_LEASE)]

    async def event_due(self, request_id: UUID) -> None:
        await self._fetch(EVENT_DUE, request_id)

    async def event_sent(self, request_ids: Iterable[UUID]) -> None:
        await self._fetch(EVENTS_SENT, list(request_ids))
