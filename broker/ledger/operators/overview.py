"""Reads the overview: is the broker healthy? overview_model.py derives the problems.

Reads no table completely: open rows have indexes of their own, the flow is stored per minute, and conservation is
the result of its last periodic check.
"""

from __future__ import annotations

import json
from datetime import timedelta

from broker.ledger.audit_log import Refusal
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

MAX_HOURS = 14 * 24
MAX_STEP_MINUTES = 24 * 60
SHOWN_FOR = timedelta(hours=1)
"""How long a process is still shown after it stopped or died."""
WORKERS_MOST = 200
CAUSES_MOST = 1000
"""Limit on suppliers times causes; more would be a fault, and is cut off."""

WORKERS = """
SELECT id, pid, started_at, heartbeat_at, unbroken_since, ready, stopped_at, host, expected, consuming, problem,
    stopped_at IS NULL AND heartbeat_at >= clock_timestamp() - $1::interval AS alive
FROM workers WHERE greatest(heartbeat_at, stopped_at) > clock_timestamp() - $2::interval
ORDER BY stopped_at IS NOT NULL, started_at DESC LIMIT $3
"""

# One query for each index: PostgreSQL uses none of them for all states in one query.
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

LAST_CHECK = "SELECT at, figures::text AS figures FROM last_looks WHERE name = 'conservation'"


class Overviews:
    """Reads the overview. Raises LedgerAway."""

    def __init__(self, pool: Pool, threshold: timedelta) -> None:
        self._pool = pool
        self._threshold = threshold

    async def overview(self, *, hours: float = 3, step_minutes: int = 1) -> Overview:
        """The overview now, with the flow of the last hours in steps of some minutes. Raises Refusal."""
        if not (0 < hours <= MAX_HOURS and 1 <= step_minutes <= MAX_STEP_MINUTES):
            raise Refusal("the flow is shown for at most 14 days, in steps of 1 to 1440 minutes")
        return await self._pool.run(lambda connection: self._read(connection, hours, step_minutes))

    async def _read(self, connection: Connection, hours: float, step_minutes: int) -> Overview:
        workers = await connection.fetch(WORKERS, self._threshold, SHOWN_FOR, WORKERS_MOST)
        [bookings] = await connection.fetch(BOOKINGS)
        check = await connection.fetchrow(LAST_CHECK)
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
            look=ConservationResult(check["at"], json.loads(check["figures"])) if check else None,
        )
