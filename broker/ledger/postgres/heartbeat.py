"""The heartbeat of this process, and the SQL that decides whether the owner of a claim is dead.

docs/architecture.md#claim. Only PostgreSQL's clock counts. A process judges others only after its own heartbeat has
been unbroken for a whole threshold: after PostgreSQL was away every heartbeat is old, and no process is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from broker.errors import LedgerAway
from broker.ledger.model import ConsumerStatus
from broker.ledger.postgres.connections import Connection, LazyConnection
from broker.ledger.postgres.reachability import Availability
from broker.telemetry.log import get_logger

log = get_logger("ledger.workers")

RETRY_S = 0.25
"""Between heartbeats while PostgreSQL is away: short enough to notice its return, long enough to be no load."""

BEAT = """
INSERT INTO workers (id, pid, started_at, heartbeat_at, unbroken_since, ready, host, expected, consuming, problem)
SELECT $1, $2, now.at, now.at, now.at, $3, $5, $6, $7, $8 FROM (SELECT clock_timestamp() AS at) AS now
ON CONFLICT (id) DO UPDATE SET
    heartbeat_at = excluded.heartbeat_at,
    unbroken_since = CASE WHEN workers.heartbeat_at < excluded.heartbeat_at - $4::interval / 2
                          THEN excluded.heartbeat_at ELSE workers.unbroken_since END,
    ready = excluded.ready, expected = excluded.expected, consuming = excluded.consuming,
    problem = excluded.problem
WHERE workers.stopped_at IS NULL
"""

STOP = "UPDATE workers SET stopped_at = clock_timestamp(), ready = false WHERE id = $1"


def owner_is_dead(owner: str) -> str:
    """SQL: the worker `owner` is unknown or stopped; or its heartbeat is old and this process ($1) may judge that.

    $2: the threshold. This process may judge when its own heartbeat is young and unbroken for a whole threshold.
    """
    return f"""NOT EXISTS (
    SELECT FROM workers AS o WHERE o.id = {owner} AND o.stopped_at IS NULL AND (
        o.heartbeat_at >= clock_timestamp() - $2::interval
        OR NOT EXISTS (
            SELECT FROM workers AS m WHERE m.id = $1 AND m.stopped_at IS NULL
            AND m.heartbeat_at > clock_timestamp() - $2::interval / 2
            AND m.unbroken_since < clock_timestamp() - $2::interval)))"""


def orphaned(owner: str, row_id: str) -> str:
    """SQL: no process works on this row. $1: this process, $2: the threshold, $3: the ids that it holds in memory.

    A row is orphaned when it has no owner (released), when this process owns it but does not hold it, or when its
    owner is dead.
    """
    return f"""(
    {owner} IS NULL OR ({owner} = $1 AND {row_id} <> ALL($3::uuid[]))
    OR ({owner} <> $1 AND {owner_is_dead(owner)}))"""


def deaths(owner: str) -> str:
    """SQL: how many deaths to count for the loss of this owner, 1 or 0.

    0 for this process ($1), which dropped the claim, and for a process that stopped cleanly.
    """
    return f"""CASE WHEN {owner} = $1 THEN 0
    WHEN EXISTS (SELECT FROM workers AS w WHERE w.id = {owner} AND w.stopped_at IS NOT NULL) THEN 0
    ELSE 1 END"""


def now_s() -> float:
    """Seconds on a clock that also counts while the machine sleeps: after a sleep the last heartbeat is old."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Heartbeat:
    """Writes this process's row in the table of workers, from a task and a connection of its own.

    So neither a batch nor a full pool can delay it.
    """

    def __init__(
        self,
        worker_id: UUID,
        connection: LazyConnection,
        availability: Availability,
        *,
        every_s: float,
        threshold: timedelta,
    ) -> None:
        self.worker_id = worker_id
        self.ready = False
        self.consumer_status: Callable[[], ConsumerStatus | None] = lambda: None
        """What each heartbeat also writes down; set once the consumers are there."""
        self._connection = connection
        self._availability = availability
        self._every_s = every_s
        self._threshold = threshold
        self._began_s = now_s()

    @property
    def age_s(self) -> float:
        """Seconds since the last committed heartbeat began: never less than PostgreSQL's own count."""
        return now_s() - self._began_s

    async def beat(self) -> None:
        """One heartbeat. Raises LedgerAway."""
        began_s = now_s()
        await self._connection.run(self._write)
        self._began_s = began_s
        if not (self._availability.away and await self._connection.is_table_locked()):
            self._availability.found()

    async def _write(self, connection: Connection) -> None:
        status = self.consumer_status() or ConsumerStatus(0, 0, None)
        await connection.execute(
            BEAT,
            self.worker_id,
            os.getpid(),
            self.ready,
            self._threshold,
            socket.gethostname(),
            status.expected,
            status.consuming,
            status.problem,
        )

    async def run(self) -> None:
        """One heartbeat after the other, until cancelled; to be run as one task."""
        while True:
            pause_s = self._every_s
            try:
                await self.beat()
            except LedgerAway as away:
                # Also when only its own row is locked: without a heartbeat others soon count this process as dead.
                self._availability.lost(away)
                pause_s = min(RETRY_S, self._every_s)
            except Exception as error:
                # A bug here must stop the consumers: otherwise the process works on while others count it dead.
                log.exception("heartbeat-failed")
                self._availability.lost(error)
            await self._rest(pause_s)

    async def _rest(self, pause_s: float) -> None:
        """Sleep, but not longer than until the next heartbeat is wanted at once."""
        if self._availability.away:
            self._availability.nudged.clear()
            await asyncio.sleep(pause_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._availability.nudged.wait()
        self._availability.nudged.clear()

    async def stop(self) -> None:
        """Write down that this process has stopped: its claims are free at once. Raises LedgerAway."""
        await self._connection.run(lambda connection: connection.execute(STOP, self.worker_id))
