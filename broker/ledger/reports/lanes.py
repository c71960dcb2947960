"""The rows of the lanes: read, locked, moved on by the pure state machine of `broker.lanes.lane` (DESIGN 6).

A lane is locked before any of its reports, everywhere: that order keeps transactions from waiting for each
other in a circle. Whatever takes a lane out of `open` gives back, uncounted, what was handed over on it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from broker.lanes.lane import Event, Lane, LaneRules, LaneState, after, tells_a_person
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.postgres.sealed import SealedRow
from broker.ledger.reports.lane_history import remember
from broker.ledger.reports.report_model import LaneRow
from broker.telemetry.log import get_logger

log = get_logger("ledger.lanes")

NAMES = [f.name for f in fields(Lane)]
LANE = ", ".join(NAMES)

READ = f"SELECT {LANE}, next_start_at, ledger_now() AS now FROM lanes WHERE supplier = $1"
LOCKED = READ + " FOR UPDATE"
FREE = READ + " FOR UPDATE SKIP LOCKED"

THESE = f"SELECT {LANE}, next_start_at, ledger_now() AS now FROM lanes WHERE supplier = ANY($1::text[])"
THESE_LOCKED = THESE + " ORDER BY supplier FOR UPDATE"

_values = ", ".join(f"{name} = ${number}" for number, name in enumerate(NAMES, 1))
WRITE = f"UPDATE lanes SET {_values} WHERE supplier = ${NAMES.index('supplier') + 1}"

ADD = "INSERT INTO lanes (supplier) VALUES ($1) ON CONFLICT DO NOTHING"

GIVE_BACK = """
UPDATE reports SET state = 'waiting', handed_at = NULL
WHERE report_id IN (
    SELECT report_id FROM reports
    WHERE supplier = $1 AND state = 'handed' AND report_id IS DISTINCT FROM $2::uuid
    ORDER BY report_id FOR UPDATE)
"""

# Each kind of load from the index that is made for it.
LIST = f"""
SELECT {LANE}, next_start_at,
    (SELECT row(count(*), min(r.due_at)) FROM reports AS r
     WHERE r.supplier = lanes.supplier AND r.state = 'waiting') AS waiting,
    (SELECT row(count(*) FILTER (WHERE r.state = 'handed'), count(*) FILTER (WHERE r.state = 'delivering'))
     FROM reports AS r WHERE r.supplier = lanes.supplier AND r.state IN ('handed', 'delivering')) AS taken
FROM lanes ORDER BY supplier
"""


@dataclass(frozen=True, slots=True)
class LaneSnapshot:
    """A lane as its row has it, and the ledger's clock at that moment."""

    lane: Lane
    next_start_at: datetime
    now: datetime


def standing_of(row: SealedRow) -> LaneSnapshot:
    """A row of READ."""
    return LaneSnapshot(lane_from_row(row), row["next_start_at"], row["now"])


def lane_from_row(row: SealedRow) -> Lane:
    """A row of the columns LANE."""
    values = {name: row[name] for name in NAMES}
    return Lane(**values | {"state": LaneState(values["state"])})


def lane_row_of(row: SealedRow) -> LaneRow:
    """A row of LIST."""
    waiting, oldest_due_at = row["waiting"]
    handed, delivering = row["taken"]
    return LaneRow(lane_from_row(row), row["next_start_at"], waiting, handed, delivering, oldest_due_at)


async def look(connection: Connection, supplier: str, statement: str = READ) -> LaneSnapshot | None:
    """The lane, locked with LOCKED or FREE; None if there is none, or (FREE) if somebody else has it."""
    row = await connection.fetchrow(statement, supplier)
    return standing_of(row) if row else None


async def look_at(
    connection: Connection, suppliers: Collection[str], *, lock: bool = False
) -> dict[str, LaneSnapshot]:
    """These lanes by name, locked in the order of their names if wanted."""
    rows = await connection.fetch(THESE_LOCKED if lock else THESE, list(suppliers))
    return {row["supplier"]: standing_of(row) for row in rows}


async def learn(connection: Connection, at: LaneSnapshot, event: Event, rules: LaneRules) -> Lane:
    """Move a locked lane on, and give back what it must not hold any more."""
    before, then = at.lane, after(at.lane, event, at.now, rules)
    if then == before:
        return then
    await connection.execute(WRITE, *_row(then))
    await remember(connection, before, then, at.now)
    if then.state is not LaneState.OPEN:
        await connection.execute(GIVE_BACK, then.supplier, then.probe)
    _say(before, then)
    return then


def _row(lane: Lane) -> list[Any]:
    return [value.value if isinstance(value := getattr(lane, name), LaneState) else value for name in NAMES]


def _say(before: Lane, then: Lane) -> None:
    if then.state is not before.state:
        reason = then.reason if then.by is None else None  # a person's own words stay in the ledger
        log.info("lane-changed", supplier=then.supplier, state=then.state.value, reason=reason)
    if (what := tells_a_person(before, then)) is not None:
        log.error("lane-needs-a-person", supplier=then.supplier, what=what)


class LaneDesk:
    """What a person does with lanes. All raise LedgerAway."""

    def __init__(self, lines: Pool, rules: LaneRules) -> None:
        self._lines = lines
        self._rules = rules

    async def tell(self, supplier: str, event: Event) -> Lane:
        """What a person says, Paused or Resumed."""

        async def work(connection: Connection) -> Lane:
            async with connection.transaction():
                await connection.execute(ADD, supplier)
                at = await look(connection, supplier, LOCKED)
                assert at is not None  # noqa: S101  added above, and lanes are never deleted
                return await learn(connection, at, event, self._rules)

        return await self._lines.run(work)

    async def lanes(self) -> list[LaneRow]:
        """Every lane there ever was, by name, with what stands on it."""

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(LIST)

        return [lane_row_of(row) for row in await self._lines.run(work)]
