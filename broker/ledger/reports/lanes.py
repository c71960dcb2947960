"""The rows of the lanes: read, locked, and changed by the pure state machine of broker/lanes/lane.py.

docs/architecture.md#lanes. A lane is always locked before its reports: one order for every transaction prevents
deadlocks. A change that takes a lane out of `open` reverts what was handed over on it, uncounted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from broker.lanes.events import Event
from broker.lanes.lane import Lane, LaneState, after, tells_a_person
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.postgres.sealed import SealedRow
from broker.ledger.reports.lane_history import record_change
from broker.ledger.reports.report_model import LaneRow
from broker.ledger.reports.revert import revert_lane
from broker.telemetry.log import get_logger
from config.report_sections import ReportSettings

log = get_logger("ledger.lanes")

NAMES = [field.name for field in fields(Lane)]
LANE = ", ".join(NAMES)

READ = f"SELECT {LANE}, next_start_at, ledger_now() AS now FROM lanes WHERE supplier = $1"
LOCKED = READ + " FOR UPDATE"
FREE = READ + " FOR UPDATE SKIP LOCKED"

READ_MANY = f"SELECT {LANE}, next_start_at, ledger_now() AS now FROM lanes WHERE supplier = ANY($1::text[])"
READ_MANY_LOCKED = READ_MANY + " ORDER BY supplier FOR UPDATE"

_values = ", ".join(f"{name} = ${number}" for number, name in enumerate(NAMES, 1))
WRITE = f"UPDATE lanes SET {_values} WHERE supplier = ${NAMES.index('supplier') + 1}"

ADD = "INSERT INTO lanes (supplier) VALUES ($1) ON CONFLICT DO NOTHING"

# One subselect for each partial index on reports.
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
    """A lane as its row was read, and the ledger's clock at that moment."""

    lane: Lane
    next_start_at: datetime
    now: datetime


def snapshot_of(row: SealedRow) -> LaneSnapshot:
    """From a row of READ."""
    return LaneSnapshot(lane_from_row(row), row["next_start_at"], row["now"])


def lane_from_row(row: SealedRow) -> Lane:
    """From a row of the columns LANE."""
    values = {name: row[name] for name in NAMES}
    return Lane(**values | {"state": LaneState(values["state"])})


def lane_row_of(row: SealedRow) -> LaneRow:
    """From a row of LIST."""
    waiting, oldest_due_at = row["waiting"]
    handed, delivering = row["taken"]
    return LaneRow(lane_from_row(row), row["next_start_at"], waiting, handed, delivering, oldest_due_at)


async def read_lane(connection: Connection, supplier: str, statement: str = READ) -> LaneSnapshot | None:
    """The lane, locked by LOCKED or FREE; None if there is none, or (FREE) if another transaction has locked it."""
    row = await connection.fetchrow(statement, supplier)
    return snapshot_of(row) if row else None


async def read_lanes(
    connection: Connection, suppliers: Collection[str], *, lock: bool = False
) -> dict[str, LaneSnapshot]:
    """Several lanes by name; locked in the order of their names if wanted."""
    rows = await connection.fetch(READ_MANY_LOCKED if lock else READ_MANY, list(suppliers))
    return {row["supplier"]: snapshot_of(row) for row in rows}


async def apply_event(
    connection: Connection, snapshot: LaneSnapshot, event: Event, rules: ReportSettings
) -> Lane:
    """Change a locked lane as `event` says, and write its history. Returns the lane after it."""
    before, lane = snapshot.lane, after(snapshot.lane, event, snapshot.now, rules)
    if lane == before:
        return lane
    await connection.execute(WRITE, *_row(lane))
    await record_change(connection, before, lane, snapshot.now)
    if lane.state is not LaneState.OPEN:
        await revert_lane(connection, lane.supplier, lane.probe)
    _log_change(before, lane)
    return lane


def _row(lane: Lane) -> list[Any]:
    return [value.value if isinstance(value := getattr(lane, name), LaneState) else value for name in NAMES]


def _log_change(before: Lane, lane: Lane) -> None:
    if lane.state is not before.state:
        # An operator's reason may hold anything: it stays in the ledger.
        reason = lane.reason if lane.by is None else None
        log.info("lane-changed", supplier=lane.supplier, state=lane.state.value, reason=reason)
    if (attention := tells_a_person(before, lane)) is not None:
        log.error("lane-needs-a-person", supplier=lane.supplier, what=attention)


class LaneLookups:
    """Reads lanes for operators. Raises LedgerAway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def all(self) -> list[LaneRow]:
        """Every lane, by name, with the number of reports on it."""
        rows = await self._pool.run(lambda connection: connection.fetch(LIST))
        return [lane_row_of(row) for row in rows]
