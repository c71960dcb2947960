"""Who lives: the heartbeat of this process, and the SQL that judges the owners of claims (DESIGN 5, "Claim").

Only PostgreSQL's clock decides. Nobody judges another dead before its own heartbeat has been unbroken for a
whole threshold: PostgreSQL away makes everyone stale, and kills no one.
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
"""Between heartbeats while PostgreSQL is away: soon enough to be back quickly, rare enough to be no load."""

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


def owner_is_dead(owner: str, *, me: str = "$1", threshold: str = "$2") -> str:
    """SQL: the worker `owner` is gone or stopped; or it is silent, and `me` is fit to judge that."""
    limit = f"{threshold}::interval"
    return f"""NOT EXISTS (
    SELECT FROM workers AS o WHERE o.id = {owner} AND o.stopped_at IS NULL AND (
        o.heartbeat_at >= clock_timestamp() - {limit}
        OR NOT EXISTS (
            SELECT FROM workers AS m WHERE m.id = {me} AND m.stopped_at IS NULL
            AND m.heartbeat_at > clock_timestamp() - {limit} / 2
            AND m.unbroken_since < clock_timestamp() - {limit})))"""  # noqa: S608  built from names and placeholders only


def deaths(owner: str, *, me: str = "$1") -> str:
    """SQL: how many owners died with this one: none if it is `me`, who dropped it, or one that stopped cleanly."""
    return f"""CASE WHEN {owner} = {me} THEN 0
    WHEN EXISTS (SELECT FROM workers AS w WHERE w.id = {owner} AND w.stopped_at IS NOT NULL) THEN 0
    ELSE 1 END"""


def now_s() -> float:
    """Seconds that also pass while the machine sleeps: a process that slept must find its heartbeat old."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Heartbeat:
    """Beats from its own task on its own line, so that no batch and no pool can starve it."""

    def __init__(
        self, me: UUID, line: LazyConnection, reach: Availability, *, every_s: float, threshold: timedelta
    ) -> None:
        self.me = me
        self.ready = False
        self.sight: Callable[[], ConsumerStatus | None] = lambda: None
        self._line = line
        self._reach = reach
        self._every_s = every_s
        self._threshold = threshold
        self._began_s = now_s()

    @property
    def age_s(self) -> float:
        """Seconds since the last committed heartbeat began: never younger than PostgreSQL thinks."""
        return now_s() - self._began_s

    async def beat(self) -> None:
        """One heartbeat. Raises LedgerAway."""
        began_s = now_s()
        await self._line.run(self._write)
        self._began_s = began_s
        self._reach.found()

    async def _write(self, connection: Connection) -> None:
        seen = self.sight() or ConsumerStatus(0, 0, None)
        mine = (self.me, os.getpid(), self.ready, self._threshold, socket.gethostname())
        await connection.execute(BEAT, *mine, seen.expected, seen.consuming, seen.problem)

    async def run(self) -> None:
        """Beat for ever; to be run as one task."""
        while True:
            pause_s = self._every_s
            try:
                await self.beat()
            except LedgerAway:
                pause_s = min(RETRY_S, self._every_s)
            except Exception as error:  # a bug must not look like a living process with a dead heart
                log.exception("heartbeat-failed")
                self._reach.lost(error)
            await self._rest(pause_s)

    async def _rest(self, pause_s: float) -> None:
        """Sleep, unless somebody wants to know at once whether PostgreSQL is there."""
        if self._reach.away:
            self._reach.nudged.clear()
            await asyncio.sleep(pause_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._reach.nudged.wait()
        self._reach.nudged.clear()

    async def stop(self) -> None:
        """Say that this process is gone: its claims are free at once. Raises LedgerAway."""
        await self._line.run(lambda connection: connection.execute(STOP, self.me))
