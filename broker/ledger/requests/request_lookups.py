"""What can be read from the ledger without a claim: open systems, open requests, workers. Only columns in the clear."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from broker.ledger.model import WorkerRow
from broker.ledger.postgres.connections import Pool

OPEN_SYSTEMS = """
SELECT DISTINCT kind, name FROM requests
CROSS JOIN LATERAL (VALUES ('planner', planner), ('booking', booking_system), ('supplier', supplier))
    AS system (kind, name)
WHERE state IN ('running', 'uncertain')
UNION
SELECT 'supplier', supplier FROM reports WHERE state IN ('joining', 'waiting', 'handed', 'delivering')
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


KNOWN = "SELECT EXISTS (SELECT FROM requests WHERE request_id = $1)"


class Lookups:
    """`ledger.lookups`: short statements on the pool. All raise LedgerAway."""

    def __init__(self, threshold: timedelta, pool: Pool) -> None:
        self._threshold = threshold
        self._pool = pool

    async def open_systems(self) -> set[tuple[str, str]]:
        """("planner" | "booking" | "supplier", name) of every system that an open request or report needs."""
        rows = await self._pool.run(lambda connection: connection.fetch(OPEN_SYSTEMS))
        return {(row["kind"], row["name"]) for row in rows if row["name"]}

    async def open_requests(self, system: str) -> list[tuple[UUID, str]]:
        """(id, state) of the oldest open requests and reports that need this system, at most 100."""
        rows = await self._pool.run(lambda connection: connection.fetch(OPEN_REQUESTS, system, OPEN_MOST))
        return [(row["id"], row["state"]) for row in rows]

    async def is_known(self, request_id: UUID) -> bool:
        """Whether the ledger has a row of this request, in any state."""
        return bool(await self._pool.run(lambda connection: connection.fetchval(KNOWN, request_id)))

    async def workers(self) -> list[WorkerRow]:
        """Every process in the table of workers, oldest first."""
        rows = await self._pool.run(lambda connection: connection.fetch(WORKERS, self._threshold))
        return [WorkerRow(**row) for row in rows]
