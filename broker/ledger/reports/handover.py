"""Hand-over: which due reports go to RabbitMQ now, lane by lane.

For each lane at most `window` reports are handed over or being delivered, at one rate over all processes; the rest
waits in the ledger (docs/architecture.md#reports). A lane on which another process is handing over is skipped.
Publishes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial

from broker.lanes.events import TimeCame
from broker.lanes.lane import may_hand_over, wants_probe
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.reports.lanes import FREE, LaneSnapshot, apply_event, read_lane
from broker.ledger.reports.new_reports import LANES
from broker.ledger.reports.report_model import HandedOver, LaneLimits
from broker.ledger.reports.revert import revert_unpublished
from config.report_sections import ReportSettings

LANES_DUE = """
SELECT supplier FROM lanes
WHERE (state = 'open' OR (state = 'parked' AND coalesce(parked_until, '-infinity') <= (SELECT ledger_now())))
    AND EXISTS (SELECT FROM reports AS r WHERE r.supplier = lanes.supplier AND r.state = 'waiting'
                AND r.due_at <= (SELECT ledger_now()))
ORDER BY supplier
"""

IN_FLIGHT = "SELECT count(*) FROM reports WHERE supplier = $1 AND state IN ('handed', 'delivering')"

DUE = """
SELECT report_id FROM reports WHERE supplier = $1 AND state = 'waiting' AND due_at <= $2
ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED
"""

DUE_EXCEPT = """
SELECT report_id FROM reports
WHERE supplier = $1 AND state = 'waiting' AND due_at <= $2 AND report_id IS DISTINCT FROM $3::uuid
ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""

HAND_OVER = """
UPDATE reports SET state = 'handed', number = number + 1, handed_at = $2
WHERE report_id = ANY($1::uuid[]) RETURNING report_id, number
"""

NEXT_START = "UPDATE lanes SET next_start_at = $2 WHERE supplier = $1"


class Handover:
    """`ledger.reports.handover`: one transaction for each lane, so that no lane waits for another. Raises LedgerAway."""

    def __init__(self, pool: Pool, rules: ReportSettings, burst: timedelta) -> None:
        """`burst`: how much of its rate an idle lane may catch up on at once."""
        self._pool = pool
        self._rules = rules
        self._burst = burst
        # Lanes that have a row; at most the suppliers of all directories so far.
        self._known: set[str] = set()

    async def hand_over(self, limits: Mapping[str, LaneLimits]) -> list[HandedOver]:
        """The reports that are due and fit the window and rate of their lane; committed: publish them now.

        A lane without limits is left alone. A parked lane whose time has come hands over one probe.
        """
        if new := limits.keys() - self._known:
            # So that an operator can pause a lane before its first report.
            await self._pool.run(lambda connection: connection.execute(LANES, sorted(new)))
            self._known |= new
        suppliers = [row["supplier"] for row in await self._pool.run(_lanes_due)]
        handed: list[HandedOver] = []
        for supplier in suppliers:
            if (lane_limits := limits.get(supplier)) is not None:
                handed += await self._pool.run(partial(self._lane, supplier, lane_limits))
        return handed

    async def _lane(self, supplier: str, limits: LaneLimits, connection: Connection) -> list[HandedOver]:
        async with connection.transaction():
            snapshot = await read_lane(connection, supplier, FREE)
            if snapshot is None:
                return []
            if wants_probe(snapshot.lane, snapshot.now):
                return await self._probe(connection, snapshot)
            if not may_hand_over(snapshot.lane, snapshot.now):
                return []
            return await self._window(connection, snapshot, limits)

    async def _window(
        self, connection: Connection, snapshot: LaneSnapshot, limits: LaneLimits
    ) -> list[HandedOver]:
        supplier = snapshot.lane.supplier
        begin = max(snapshot.next_start_at, snapshot.now - self._burst)
        allowed = allowance(begin, snapshot.now, limits.rate_per_second)
        free = limits.window - int(await connection.fetchval(IN_FLIGHT, supplier) or 0)
        most = min(allowed, free)
        if most <= 0:
            return []
        rows = await connection.fetch(DUE, supplier, snapshot.now, most)
        if not rows:
            return []
        used = timedelta(seconds=len(rows) / limits.rate_per_second)
        await connection.execute(NEXT_START, supplier, begin + used)
        return await self._hand(connection, snapshot, [row["report_id"] for row in rows], probe=False)

    async def _probe(self, connection: Connection, snapshot: LaneSnapshot) -> list[HandedOver]:
        # Another report than the last probe if there is one: the last may be the cause of the failure.
        supplier, last = snapshot.lane.supplier, snapshot.lane.last_probe
        row = await connection.fetchrow(DUE_EXCEPT, supplier, snapshot.now, last)
        row = row or await connection.fetchrow(DUE_EXCEPT, supplier, snapshot.now, None)
        if row is None:
            return []
        await apply_event(connection, snapshot, TimeCame(row["report_id"]), self._rules)
        return await self._hand(connection, snapshot, [row["report_id"]], probe=True)

    @staticmethod
    async def _hand(
        connection: Connection, snapshot: LaneSnapshot, ids: list[object], *, probe: bool
    ) -> list[HandedOver]:
        rows = await connection.fetch(HAND_OVER, ids, snapshot.now)
        return [HandedOver(row["report_id"], row["number"], snapshot.lane.supplier, probe) for row in rows]

    async def revert(self, *handed: HandedOver) -> None:
        """Their publish failed or was not confirmed: they wait again, uncounted."""
        await self._pool.run(lambda connection: revert_unpublished(connection, handed))


async def _lanes_due(connection: Connection) -> list[dict[str, str]]:
    return [dict(row) for row in await connection.fetch(LANES_DUE)]


def allowance(begin: datetime, now: datetime, rate_per_second: float) -> int:
    """How many starts the rate allows from the next free one at `begin` until `now`, the one at `now` included."""
    return max(0, int((now - begin).total_seconds() * rate_per_second + 1e-6) + 1) if begin <= now else 0
