"""The ledger for operators, in parts, on a small connection pool of its own.

A separate pool, so that a large list or a long replay does not delay a booking. Claims and settles no request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Self
from uuid import UUID

from broker.ledger.audit_log import Actor, OperatorLog, write_down
from broker.ledger.dead_letters.letters import Letters
from broker.ledger.dead_letters.places import Places
from broker.ledger.dead_letters.replays import Replays
from broker.ledger.ledger import dsn_of
from broker.ledger.model import NewReport
from broker.ledger.operators.figures import FiguresReader
from broker.ledger.operators.flow import CounterValues, Rollup
from broker.ledger.operators.lane_control import LaneControl
from broker.ledger.operators.overview import Overviews
from broker.ledger.operators.people import People
from broker.ledger.operators.stories import Stories
from broker.ledger.operators.supplier_figures import Suppliers
from broker.ledger.postgres.connections import Connection, Pool, Server
from broker.ledger.postgres.reachability import Availability
from broker.ledger.postgres.sealed import FieldSealer
from broker.ledger.postgres.versions import check_version
from broker.ledger.reports.new_reports import NewReports, report_entry
from broker.sealing import Sealer
from config.settings import Settings

CONNECTIONS = 2
"""One for reconciliation or a replay, one for a person who reads at the same time."""


class Operations:
    """`async with Operations.open(settings, sealer) as operations`. All calls raise LedgerAway."""

    def __init__(self, settings: Settings, sealer: Sealer, pool: Pool, server: Server) -> None:
        threshold = timedelta(seconds=settings.ledger.owner_dead_after_seconds)
        self.server = server
        self.sealer = sealer
        self.letters = Letters(pool)
        self.replays = Replays(pool, settings.dead.replay_rate_per_second)
        self.places = Places(pool, server)
        self.log = OperatorLog(pool)
        self.stories = Stories(pool)
        self.people = People(pool, sealer)
        self.lanes = LaneControl(pool, settings.reports)
        self.overviews = Overviews(pool, threshold)
        self.suppliers = Suppliers(pool)
        self.figures = FiguresReader(pool, threshold)
        self._pool = pool

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, sealer: Sealer) -> AsyncIterator[Self]:
        """Raises LedgerAway, or LedgerMisfit with the command that helps."""
        async with AsyncExitStack() as stack:
            server = Server(await dsn_of(settings, stack), settings.ledger.statement_timeout_seconds)
            pool = Pool(server, Availability(quiet=True), CONNECTIONS)
            stack.push_async_callback(pool.close)
            await pool.run(check_version)
            yield cls(settings, sealer, pool, server)

    def rollup(self, worker: UUID, counted: Callable[[], CounterValues]) -> Rollup:
        """Writes the counts of one process into the table of flow."""
        return Rollup(self._pool, worker, counted)

    async def add_report(self, report: NewReport, by: Actor, action: str) -> None:
        """Add a report that belongs to no request, due now; logged in the same commit."""
        entry = report_entry(report, report.request_id, FieldSealer(self.sealer))

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                # Neither merged nor joined with other reports.
                new = NewReports(merge_within=timedelta(0), join_within=timedelta(0))
                await new.make(connection, [entry])
                await write_down(connection, by, action, str(report.report_id), {"supplier": report.supplier})

        await self._pool.run(work)
