"""The ledger as the rest of the broker sees it: `async with Ledger.open(settings, sealer) as ledger`.

Claims, settles and the attempts at reports are batched into group commits and wait while PostgreSQL is away; every
other call raises LedgerAway then. The ledger publishes nothing and calls no external system.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Self
from uuid import uuid4

from broker.errors import LedgerAway
from broker.ledger.model import LedgerMisfit
from broker.ledger.postgres.connections import Connection, LazyConnection, Pool, Server
from broker.ledger.postgres.embedded import Embedded
from broker.ledger.postgres.heartbeat import Heartbeat
from broker.ledger.postgres.reachability import Availability
from broker.ledger.postgres.sealed import FieldSealer
from broker.ledger.postgres.versions import bring_up_to_date, check_version
from broker.ledger.reports.new_reports import NewReports
from broker.ledger.reports.report_ledger import Reports
from broker.ledger.requests.claims import Claims
from broker.ledger.requests.held_claims import HeldClaims
from broker.ledger.requests.request_events import RequestEvents
from broker.ledger.requests.request_ledger import Requests
from broker.ledger.requests.request_lookups import Lookups
from broker.ledger.requests.settles import Settles
from broker.ledger.requests.verifications import Verifications
from broker.sealing import Sealer
from broker.tasks import cancel_and_wait
from config.settings import Settings

OWN_CONNECTIONS = 3
"""Heartbeat, claims and settles have a connection each; the rest of `pool_size` is for the other calls."""
CLOSE_S = 5.0
"""How long closing waits for the last batches to be committed."""
OLD_TURNS = "SELECT DISTINCT turn_key FROM requests WHERE turn IS NOT NULL AND turn_key <> $1"


async def dsn_of(settings: Settings, stack: contextlib.AsyncExitStack) -> str:
    """The configured DSN, or that of the embedded server: started, upgraded, and let go with `stack`."""
    if settings.ledger.dsn is not None:
        return settings.ledger.dsn.get_secret_value()
    embedded = await Embedded.start(settings.ledger.embedded_directory)
    stack.push_async_callback(embedded.close)
    await bring_up_to_date(embedded.dsn)
    return embedded.dsn


class Ledger:
    """One process's access to PostgreSQL. `owner` is the id of this process in the table of workers."""

    def __init__(self, settings: Settings, sealer: Sealer, dsn: str) -> None:
        section = settings.ledger
        threshold = timedelta(seconds=section.owner_dead_after_seconds)
        server = Server(dsn, section.statement_timeout_seconds)
        # A heartbeat that hangs must fail well before others count this process as dead.
        quick = Server(dsn, min(section.statement_timeout_seconds, section.owner_dead_after_seconds / 3))
        self.owner = uuid4()
        self.availability = Availability()
        self._own = [LazyConnection(where, self.availability) for where in (quick, server, server)]
        beating, claiming, settling = self._own
        self._pool = Pool(server, self.availability, max(1, section.pool_size - OWN_CONNECTIONS))
        self._sealer = FieldSealer(sealer)
        self.heartbeat = Heartbeat(
            self.owner, beating, self.availability, every_s=section.heartbeat_seconds, threshold=threshold
        )
        held = HeldClaims()
        new_reports = NewReports(
            merge_within=timedelta(seconds=settings.reports.merge_within_seconds),
            join_within=timedelta(seconds=settings.reports.join_within_seconds),
        )
        claims = Claims(self.owner, threshold, claiming, self._pool, self._sealer, held, new_reports)
        verify_after = timedelta(seconds=settings.verification.every_seconds)
        settles = Settles(verify_after, settling, self._sealer, new_reports)
        self.requests = Requests(section, claims, settles, held, self.availability)
        self.verifications = Verifications(self.owner, threshold, self._pool, self._sealer, held, settles)
        self.events = RequestEvents(self._pool)
        self.lookups = Lookups(threshold, self._pool)
        self.reports = Reports(settings, self.owner, self._pool, server, self.availability, self._sealer)
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings, sealer: Sealer) -> AsyncIterator[Self]:
        """A ledger with a running heartbeat. Raises LedgerAway, or LedgerMisfit with the command to run."""
        async with contextlib.AsyncExitStack() as stack:
            ledger = cls(settings, sealer, await dsn_of(settings, stack))
            stack.push_async_callback(ledger._close)
            await ledger._start()
            yield ledger

    @classmethod
    @contextlib.asynccontextmanager
    async def reading(cls, settings: Settings) -> AsyncIterator[Lookups]:
        """For commands: look-ups without heartbeat or claims. Raises LedgerAway, LedgerMisfit."""
        section = settings.ledger
        async with contextlib.AsyncExitStack() as stack:
            server = Server(await dsn_of(settings, stack), section.statement_timeout_seconds)
            pool = Pool(server, Availability(quiet=True), 1)
            stack.push_async_callback(pool.close)
            await pool.run(check_version)
            yield Lookups(timedelta(seconds=section.owner_dead_after_seconds), pool)

    async def set_ready(self, ready: bool) -> None:
        """Write `ready` into the table of workers, with a heartbeat at once."""
        self.heartbeat.ready = ready
        self.availability.nudged.set()

    async def _start(self) -> None:
        await self._pool.run(self._check)
        await self.heartbeat.beat()
        for run in (self.heartbeat.run, *self.requests.commit_loops, *self.reports.commit_loops):
            self._tasks.append(asyncio.create_task(run()))

    async def _check(self, connection: Connection) -> None:
        await check_version(connection)
        # Turns under two token keys do not exclude each other: two bookings of one citizen could run at once.
        if old := await connection.fetch(OLD_TURNS, self._sealer.turn_key):
            keys = ", ".join(row["turn_key"] for row in old)
            raise LedgerMisfit(
                f"open bookings hold their turn under token key {keys}: keep it first in token_order"
            )

    async def _close(self) -> None:
        """Commit the batches in hand, stop the heartbeat, close the connections, within CLOSE_S.

        Nothing is lost when that fails: open claims then count as left by a dead owner.
        """
        with contextlib.suppress(TimeoutError, LedgerAway):
            async with asyncio.timeout(CLOSE_S):
                if self._tasks:
                    await self.requests.drained()
                    await self.reports.drained()
                    await self._stop_tasks()
                await self.heartbeat.stop()
        await self._stop_tasks()
        for connection in self._own:
            await connection.close()
        await self.reports.close()
        await self._pool.close()

    async def _stop_tasks(self) -> None:
        # The heartbeat is among them: none may follow the row that says stopped.
        await cancel_and_wait(self._tasks)
