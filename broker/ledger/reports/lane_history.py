"""The history of lanes: what changed, when and why, written in the commit of the change, never changed after.

Bounded by retention: a lane that flaps changes twice for each parking, and parkings double to half an hour.
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
    """One change of a lane's state, of how long it is parked, or of what a person has to see to."""

    id: int
    at: datetime
    supplier: str
    before: str
    state: str
    parked_until: datetime | None
    reason: str | None
    by: str | None
    attention: str | None


NAMES = ", ".join(f.name for f in fields(LaneChange))
OF_SUPPLIER = f"SELECT {NAMES} FROM lane_changes WHERE supplier = $1 ORDER BY id DESC LIMIT $2"


async def remember(connection: Connection, before: Lane, then: Lane, now: datetime) -> None:
    """Write the change down, in the caller's transaction; counting a failure is none."""
    if _shown(before) == _shown(then):
        return
    await connection.execute(
        WRITE,
        now,
        then.supplier,
        before.state.value,
        then.state.value,
        then.parked_until,
        then.reason,
        then.by,
        then.attention,
    )


def _shown(lane: Lane) -> tuple[object, ...]:
    return lane.state, lane.parked_until, lane.attention


async def changes_of(connection: Connection, supplier: str, limit: int) -> list[LaneChange]:
    """The newest changes of one lane, newest first."""
    rows = await connection.fetch(OF_SUPPLIER, supplier, min(limit, MOST))
    return [LaneChange(**row) for row in rows]
