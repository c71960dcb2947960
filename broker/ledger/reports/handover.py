"""Handing over: which due reports go to RabbitMQ now, lane by lane, and taking back what did not get there.

Per lane at most its window is handed over or being delivered, at one rate over all processes; the rest waits
here (DESIGN 6). A lane that another process is handing over on is left to it. Publishes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial

from broker.lanes.lane import LaneRules, TimeCame, may_hand_over, wants_probe
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.reports.lanes import FREE, LaneSnapshot, learn, look
from broker.ledger.reports.new_reports import LANES
from broker.ledger.reports.report_model import HandedOver, LaneLimits

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

ANOTHER = """
SELECT report_id FROM reports
WHERE supplier = $1 AND state = 'waiting' AND due_at <= $2 AND report_id IS DISTINCT FROM $3::uuid
ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""

HAND_OVER = """
UPDATE reports SET state = 'handed', number = number + 1, handed_at = $2
WHERE report_id = ANY($1::uuid[]) RETURNING report_id, number
"""

NEXT_START = "UPDATE lanes SET next_start_at = $2 WHERE supplier = $1"

GIVE_BACK = """
UPDATE reports SET state = 'waiting', handed_at = NULL
FROM unnest($1::uuid[], $2::bigint[]) AS given (id, number)
WHERE report_id = given.id AND reports.number = given.number AND state = 'handed'
"""


class Handover:
    """One transaction a lane, so that no lane waits for another one. All raise LedgerAway."""

    def __init__(self, lines: Pool, rules: LaneRules, burst: timedelta) -> None:
        self._lines = lines
        self._rules = rules
        self._burst = burst
        self._known: set[str] = (
            set()
        )  # lanes that have a row; at most the suppliers of the directories so far

    async def hand_over(self, limits: Mapping[str, LaneLimits]) -> list[HandedOver]:
        if new := limits.keys() - self._known:  # so that a person can pause a lane before its first report
            await self._lines.run(lambda connection: connection.execute(LANES, sorted(new)))
            self._known |= new
        suppliers = [row["supplier"] for row in await self._lines.run(_lanes_due)]
        handed: list[HandedOver] = []
        for supplier in suppliers:
            if (its := limits.get(supplier)) is not None:
                handed += await self._lines.run(partial(self._lane, supplier, its))
        return handed

    async def _lane(self, supplier: str, limits: LaneLimits, connection: Connection) -> list[HandedOver]:
        async with connection.transaction():
            at = await look(connection, supplier, FREE)
            if at is None:
                return []
            if wants_probe(at.lane, at.now):
                return await self._probe(connection, at)
            if not may_hand_over(at.lane, at.now):
                return []
            return await self._window(connection, at, limits)

    async def _window(self, connection: Connection, at: LaneSnapshot, limits: LaneLimits) -> list[HandedOver]:
        supplier = at.lane.supplier
        begin = max(at.next_start_at, at.now - self._burst)
        allowed = allowance(begin, at.now, limits.rate_per_second)
        free = limits.window - int(await connection.fetchval(IN_FLIGHT, supplier) or 0)
        most = min(allowed, free)
        if most <= 0:
            return []
        rows = await connection.fetch(DUE, supplier, at.now, most)
        if not rows:
            return []
        used = timedelta(seconds=len(rows) / limits.rate_per_second)
        await connection.execute(NEXT_START, supplier, begin + used)
        return await self._hand(connection, at, [row["report_id"] for row in rows], probe=False)

    async def _probe(self, connection: Connection, at: LaneSnapshot) -> list[HandedOver]:
        """Another one than last time, if there is another."""
        supplier, last = at.lane.supplier, at.lane.last_probe
        row = await connection.fetchrow(ANOTHER, supplier, at.now, last)
        row = row or await connection.fetchrow(ANOTHER, supplier, at.now, None)
        if row is None:
            return []
        await learn(connection, at, TimeCame(row["report_id"]), self._rules)
        return await self._hand(connection, at, [row["report_id"]], probe=True)

    @staticmethod
    async def _hand(
        connection: Connection, at: LaneSnapshot, ids: list[object], *, probe: bool
    ) -> list[HandedOver]:
        rows = await connection.fetch(HAND_OVER, ids, at.now)
        return [HandedOver(row["report_id"], row["number"], at.lane.supplier, probe) for row in rows]

    async def give_back(self, handed: Iterable[HandedOver]) -> None:
        """Not published, or nobody knows: waiting again, uncounted. A message that did get there is dropped."""
        ordered = sorted(handed, key=lambda one: one.report_id.bytes)
        ids, numbers = [one.report_id for one in ordered], [one.number for one in ordered]
        await self._lines.run(lambda connection: connection.execute(GIVE_BACK, ids, numbers))


async def _lanes_due(connection: Connection) -> list[dict[str, str]]:
    return [dict(row) for row in await connection.fetch(LANES_DUE)]


def allowance(begin: datetime, now: datetime, rate_per_second: float) -> int:
    """How many starts fit between the next free one and now, the one at `now` included."""
    return max(0, int((now - begin).total_seconds() * rate_per_second + 1e-6) + 1) if begin <= now else 0
