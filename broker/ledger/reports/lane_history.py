"""The history of lanes: each change and its reason, written in the transaction of the change; append-only.

Bounded by retention, and by the parking times, which double up to half an hour: a lane that keeps failing changes
twice for each parking.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime

from broker.lanes.lane import Lane
from broker.ledger.postgres.connections import Connection

MOST = 500

WRITE = """
INSERT INTO lane_changes (at, supplier, before, state, parked_until, reason, by, attention)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""


@dataclass(frozen=True, slots=True)
class LaneChange:
    """One change of a lane's state, of the end of its parking, or of what an operator has to see to."""

    id: int
    at: datetime
    supplier: str
    before: str
    state: str
    parked_until: datetime | None
    reason: str | None
    by: str | None
    attention: str | None


NAMES = ", ".join(field.name for field in fields(LaneChange))
OF_SUPPLIER = f"SELECT {NAMES} FROM lane_changes WHERE supplier = $1 ORDER BY id DESC LIMIT $2"


async def record_change(connection: Connection, before: Lane, lane: Lane, now: datetime) -> None:
    """Write the change into the history, in the caller's transaction; a counted failure alone is no change."""
    if _shown(before) == _shown(lane):
        return
    await connection.execute(
        WRITE,
        now,
        lane.supplier,
        before.state.value,
        lane.state.value,
        lane.parked_until,
        lane.reason,
        lane.by,
        lane.attention,
    )


def _shown(lane: Lane) -> tuple[object, ...]:
    return lane.state, lane.parked_until, lane.attention


async def changes_of(connection: Connection, supplier: str, limit: int) -> list[LaneChange]:
    """The newest changes of one lane, newest first."""
    rows = await connection.fetch(OF_SUPPLIER, supplier, min(limit, MOST))
    return [LaneChange(**row) for row in rows]
