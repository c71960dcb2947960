"""Are we healthy: everything that answers that in one glance, read in one go (and judged in overview_model.py).

No table is counted whole: what is open is small or has an index of its own, what flowed was written down by the
minute, and whether anything is unaccounted for is the running conservation check's word (its last look).
"""

from __future__ import annotations

import json
from datetime import timedelta

from broker.ledger.model import WorkerRow
from broker.ledger.operators.figures import STATES
from broker.ledger.operators.flow import flow_of
from broker.ledger.operators.overview_model import (
    ConservationResult,
    DeadCause,
    OpenBookings,
    Overview,
    UncertainBooking,
    Waiting,
)
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.reports.lanes import LIST, lane_row_of

SHOWN_FOR = timedelta(hours=1)
"""How long a process that stopped or died stays in sight."""
WORKERS_MOST = 200
CAUSES_MOST = 1000
"""Suppliers times causes: more would be a fault, and is cut."""

WORKERS = """
SELECT id, pid, started_at, heartbeat_at, unbroken_since, ready, stopped_at, host, expected, consuming, problem,
    stopped_at IS NULL AND heartbeat_at >= clock_timestamp() - $1::interval AS alive
FROM workers WHERE greatest(heartbeat_at, stopped_at) > clock_timestamp() - $2::interval
ORDER BY stopped_at IS NOT NULL, started_at DESC LIMIT $3
"""

# A statement for each index: PostgreSQL finds none for all the states together.
WAITING_IN = """
SELECT supplier, state, CASE WHEN attempts > 0 THEN cause END AS cause, count(*) AS count,
    min(created_at) AS oldest_at, min(due_at) AS next_due_at
FROM reports WHERE {states} GROUP BY 1, 2, 3
"""
WAITING = (
    " UNION ALL ".join(WAITING_IN.format(states=states) for states in STATES)
    + " ORDER BY count DESC LIMIT $1"
)

DEAD = """
SELECT kind, cause, cause_class, count(*) AS count, min(first_seen_at) AS oldest_at, max(last_seen_at) AS newest_at,
    count(*) FILTER (WHERE last_seen_at > now.at - interval '1 hour') AS last_hour
FROM letters, (SELECT ledger_now() AS at) AS now GROUP BY 1, 2, 3 ORDER BY count DESC, cause LIMIT $1
"""

BOOKINGS = """
SELECT (SELECT row(count(*), min(created_at)) FROM requests WHERE state = 'running') AS running,
    (SELECT row(count(*), min(coalesce(uncertain_since, created_at))) FROM requests WHERE state = 'uncertain') AS uncertain
"""

UNCERTAIN = """
SELECT request_id, type, booking_system, coalesce(uncertain_since, created_at) AS since, verify_due_at, verify_tries
FROM requests WHERE state = 'uncertain' ORDER BY since, request_id LIMIT $1
"""
UNCERTAIN_SHOWN = 20

LOOK = "SELECT at, figures::text AS figures FROM last_looks WHERE name = 'conservation'"


class Overviews:
    """Reads the overview. Raises LedgerAway."""

    def __init__(self, lines: Pool, threshold: timedelta) -> None:
        self._lines = lines
        self._threshold = threshold

    async def overview(self, hours: float, step_minutes: int) -> Overview:
        """What stands now, and the flow of the last hours in such steps."""
        return await self._lines.run(lambda connection: self._read(connection, hours, step_minutes))

    async def _read(self, connection: Connection, hours: float, step_minutes: int) -> Overview:
        workers = await connection.fetch(WORKERS, self._threshold, SHOWN_FOR, WORKERS_MOST)
        [bookings] = await connection.fetch(BOOKINGS)
        look = await connection.fetchrow(LOOK)
        return Overview(
            at=await connection.fetchval("SELECT ledger_now()"),
            workers=tuple(WorkerRow(**row) for row in workers),
            flow=await flow_of(connection, hours, step_minutes),
            lanes=tuple(lane_row_of(row) for row in await connection.fetch(LIST)),
            waiting=tuple(Waiting(**row) for row in await connection.fetch(WAITING, CAUSES_MOST)),
            dead=tuple(DeadCause(**row) for row in await connection.fetch(DEAD, CAUSES_MOST)),
            bookings=OpenBookings(*bookings["running"], *bookings["uncertain"]),
            uncertain=tuple(
                UncertainBooking(**row) for row in await connection.fetch(UNCERTAIN, UNCERTAIN_SHOWN)
            ),
            look=ConservationResult(look["at"], json.loads(look["figures"])) if look else None,
        )
