"""Lanes for operators: list, show, pause, resume."""

from __future__ import annotations

from broker.lanes.events import Event, Paused, Resumed
from broker.lanes.lane import Lane
from broker.ledger.audit_log import Actor, Refusal, write_down
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.reports.lanes import LOCKED, LaneLookups, apply_event, read_lane
from broker.ledger.reports.report_model import LaneRow
from config.report_sections import ReportSettings


class LaneControl(LaneLookups):
    """Reads and changes lanes. Raises LedgerAway, and Refusal for a supplier that has no lane."""

    def __init__(self, pool: Pool, rules: ReportSettings) -> None:
        super().__init__(pool)
        self._rules = rules

    async def one(self, supplier: str) -> LaneRow:
        """One lane."""
        for row in await self.all():
            if row.lane.supplier == supplier:
                return row
        raise Refusal(f"no lane {supplier} is known")

    async def pause(self, supplier: str, by: Actor) -> Lane:
        """Hand no report over to this supplier until an operator resumes its lane."""
        return await self._change(supplier, Paused(by.name, by.reason), by, "lanes.pause")

    async def resume(self, supplier: str, by: Actor) -> Lane:
        """Open a paused lane again; let a parked one probe at once."""
        return await self._change(supplier, Resumed(by.name, by.reason), by, "lanes.resume")

    async def _change(self, supplier: str, event: Event, by: Actor, action: str) -> Lane:
        async def work(connection: Connection) -> Lane:
            async with connection.transaction():
                snapshot = await read_lane(connection, supplier, LOCKED)
                if snapshot is None:
                    raise Refusal(f"no lane {supplier} is known")
                lane = await apply_event(connection, snapshot, event, self._rules)
                details = {"before": snapshot.lane.state.value, "after": lane.state.value}
                await write_down(connection, by, action, supplier, details)
            return lane

        return await self._pool.run(work)
