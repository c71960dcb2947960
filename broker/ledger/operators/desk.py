"""Everything in the ledger that operators and the pass over the dead letters need, on a few connections of its own.

So a large list or a long replay never waits in line before a booking. Nothing here claims or settles a request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Self
from uuid import UUID

from broker.lanes.lane import Event, Lane
from broker.ledger.audit_log import Actor, OperatorLog, Refusal, write_down
from broker.ledger.dead_letters.letters import Letters
from broker.ledger.dead_letters.places import Places
from broker.ledger.dead_letters.replays import Replays
from broker.ledger.ledger import dsn_of
from broker.ledger.model import NewReport
from broker.ledger.operators.figures import FiguresReader
from broker.ledger.operators.flow import CounterValues, Rollup
from broker.ledger.operators.overview import Overviews
from broker.ledger.operators.people import People
from broker.ledger.operators.stories import Stories
from broker.ledger.operators.supplier_figures import Suppliers
from broker.ledger.postgres.connections import Connection, Pool, Server
from broker.ledger.postgres.reachability import Availability
from broker.ledger.postgres.sealed import FieldSealer
from broker.ledger.postgres.versions import check_version
from broker.ledger.reports.lanes import LOCKED, LaneLookups, apply_event, read_lane
from broker.ledger.reports.new_reports import NewReports, report_entry
from broker.sealing import Sealer
from config.settings import Settings

LINES = 2
"""One for the pass or a replay, one for a person who looks at the same time."""


class Operations:
    """`async with Desk.open(settings, sealer) as desk`. Its calls raise LedgerAway."""

    def __init__(self, settings: Settings, sealer: Sealer, lines: Pool, target: Server) -> None:
        threshold = timedelta(seconds=settings.ledger.owner_dead_after_seconds)
        self.settings = settings
        self.target = target
        self.sealer = sealer
        self.letters = Letters(lines)
        self.replays = Replays(lines)
        self.places = Places(lines, target)
        self.log = OperatorLog(lines)
        self.stories = Stories(lines)
        self.people = People(lines, sealer)
        self.lanes = LaneLookups(lines)
        self.overviews = Overviews(lines, threshold)
        self.suppliers = Suppliers(lines)
        self.figures = FiguresReader(lines, threshold)
        self._lines = lines

    def rollup(self, worker: UUID, counted: Callable[[], CounterValues]) -> Rollup:
        """What writes a process's counts down, minute by minute."""
        return Rollup(self._lines, worker, counted)

    async def tell_lane(self, supplier: str, event: Event, by: Actor, action: str) -> Lane:
        """A person's word to a lane, in one commit with the operators' log."""

        async def work(connection: Connection) -> Lane:
            async with connection.transaction():
                at = await read_lane(connection, supplier, LOCKED)
                if at is None:
                    raise Refusal(f"no lane {supplier} is known")
                then = await apply_event(connection, at, event, self.settings.reports)
                details = {"before": at.lane.state.value, "after": then.state.value}
                await write_down(connection, by, action, supplier, details)
            return then

        return await self._lines.run(work)

    async def put_on_lane(self, report: NewReport, by: Actor, action: str) -> None:
        """A report that no request made, due now, in one commit with the operators' log."""
        entry = report_entry(report, report.request_id, FieldSealer(self.sealer))

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                await NewReports(merge_within=timedelta(0), join_within=timedelta(0)).make(
                    connection, [entry]
                )
                await write_down(connection, by, action, str(report.report_id), {"supplier": report.supplier})

        await self._lines.run(work)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, sealer: Sealer) -> AsyncIterator[Self]:
        """Raises LedgerAway, or LedgerMisfit with the command that helps."""
        async with AsyncExitStack() as stack:
            target = Server(await dsn_of(settings, stack), settings.ledger.statement_timeout_seconds)
            lines = Pool(target, Availability(), LINES)
            stack.push_async_callback(lines.close)
            await lines.run(check_version)
            yield cls(settings, sealer, lines, target)
