"""Are we healthy: everything that answers that in one glance, read in one go, and judged in sentences.

No table is counted whole: what is open is small or has an index of its own, what flowed was written down by the
minute, and whether anything is unaccounted for is the running conservation check's word (its last look).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from broker.lanes import LaneState
from broker.ledger.figures import STATES
from broker.ledger.flow import Flow, flow_of
from broker.ledger.lanes import LIST, lane_row_of
from broker.ledger.lines import Connection, Lines
from broker.ledger.model import WorkerRow
from broker.ledger.report_model import LaneRow

SHOWN_FOR = timedelta(hours=1)
"""How long a process that stopped or died stays in sight."""
WORKERS_MOST = 200
CAUSES_MOST = 1000
"""Suppliers times causes: more would be a fault, and is cut."""
LOOK_TOO_OLD = timedelta(minutes=10)
"""Conservation is looked at every minute; a look that old means that nobody looks."""

WORKERS = """
SELECT id, pid, started_at, heartbeat_at, unbroken_since, ready, stopped_at, host, expected, consuming, problem,
    stopped_at IS NULL AND heartbeat_at >= clock_timestamp() - $1::interval AS alive
FROM workers WHERE greatest(heartbeat_at, stopped_at) > clock_timestamp() - $2::interval
ORDER BY stopped_at IS NOT NULL, started_at DESC LIMIT $3
"""

# A statement for each index: PostgreSQL finds none for all the states together.
WAITING_IN = """
SELECT supplier, state, CASE WHEN attempts > 0 THEN cause END AS cause, count(*) AS count,
    min(created_at) AS oldest_at, min(due_at) AS next_due_at
FROM reports WHERE {states} GROUP BY 1, 2, 3
"""
WAITING = (
    " UNION ALL ".join(WAITING_IN.format(states=states) for states in STATES)
    + " ORDER BY count DESC LIMIT $1"
)

DEAD = """
SELECT kind, cause, cause_class, count(*) AS count, min(first_seen_at) AS oldest_at, max(last_seen_at) AS newest_at,
    count(*) FILTER (WHERE last_seen_at > now.at - interval '1 hour') AS last_hour
FROM letters, (SELECT ledger_now() AS at) AS now GROUP BY 1, 2, 3 ORDER BY count DESC, cause LIMIT $1
"""

BOOKINGS = """
SELECT (SELECT row(count(*), min(created_at)) FROM requests WHERE state = 'running') AS running,
    (SELECT row(count(*), min(coalesce(uncertain_since, created_at))) FROM requests WHERE state = 'uncertain') AS uncertain
"""

UNCERTAIN = """
SELECT request_id, type, booking_system, coalesce(uncertain_since, created_at) AS since, verify_due_at, verify_tries
FROM requests WHERE state = 'uncertain' ORDER BY since, request_id LIMIT $1
"""
UNCERTAIN_SHOWN = 20

LOOK = "SELECT at, figures::text AS figures FROM last_looks WHERE name = 'conservation'"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Reports that wait on a lane, by the cause of their last failure; None: not tried yet."""

    supplier: str | None
    state: str
    cause: str | None
    count: int
    oldest_at: datetime
    next_due_at: datetime


@dataclass(frozen=True, slots=True)
class DeadCause:
    """Open dead letters by cause, over all suppliers."""

    kind: str
    cause: str
    cause_class: str
    count: int
    oldest_at: datetime
    newest_at: datetime
    last_hour: int


@dataclass(frozen=True, slots=True)
class OpenBookings:
    """Requests that are being carried, and bookings whose fate is not known yet."""

    running: int
    oldest_running_at: datetime | None
    uncertain: int
    oldest_uncertain_at: datetime | None


@dataclass(frozen=True, slots=True)
class UncertainBooking:
    """A booking that was sent and of which nobody knows, and when it is looked up next."""

    request_id: UUID
    type: str
    booking_system: str
    since: datetime
    verify_due_at: datetime | None
    verify_tries: int


@dataclass(frozen=True, slots=True)
class Look:
    """The last look at conservation: when, and its figures: `gaps`, `kinds` of gaps, and some of them `named`."""

    at: datetime
    figures: dict[str, Any]

    @property
    def gaps(self) -> int:
        """What could not be accounted for."""
        return int(self.figures.get("gaps", 0))

    @property
    def named(self) -> list[dict[str, str]]:
        """Some of them: kind of `gap` and `id`."""
        return list(self.figures.get("named", []))


@dataclass(frozen=True, slots=True)
class Problem:
    """A sentence about what is not well: `bad` needs a person now, `warn` soon.

    `about` says of what (processes, conservation, lane, bookings or dead), `subject` of which lane.
    """

    level: str
    text: str
    about: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything of the first page, at one moment of the ledger's clock."""

    at: datetime
    workers: tuple[WorkerRow, ...]
    flow: Flow
    lanes: tuple[LaneRow, ...]
    waiting: tuple[Waiting, ...]
    dead: tuple[DeadCause, ...]
    bookings: OpenBookings
    uncertain: tuple[UncertainBooking, ...]
    look: Look | None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The worst first; none means healthy."""
        return tuple(sorted(_problems(self), key=lambda problem: problem.level))

    @property
    def oldest_at(self) -> datetime | None:
        """When the oldest thing that is still open began: a request, a waiting report or a dead letter."""
        ages = [row.oldest_at for row in self.waiting] + [row.oldest_at for row in self.dead]
        ages += [at for at in (self.bookings.oldest_running_at, self.bookings.oldest_uncertain_at) if at]
        return min(ages, default=None)


def _problems(seen: Overview) -> Iterator[Problem]:
    yield from _of_workers(seen)
    if seen.look is None or seen.at - seen.look.at > LOOK_TOO_OLD:
        yield Problem("warn", "nobody looks whether everything is accounted for", "conservation")
    elif seen.look.gaps:
        text = f"{seen.look.gaps} cannot be accounted for; see: jobnet-broker ledger conserve"
        yield Problem("bad", text, "conservation")
    for row in seen.lanes:
        lane = row.lane
        if lane.attention:
            yield Problem("bad", lane.attention, "lane", lane.supplier)
        elif lane.state is not LaneState.OPEN:
            text = f"lane {lane.supplier} is {lane.state.value}; {row.waiting} reports wait on it"
            yield Problem("warn", text, "lane", lane.supplier)
    if count := seen.bookings.uncertain:
        yield Problem(
            "warn", f"{count} {'booking is' if count == 1 else 'bookings are'} uncertain", "bookings"
        )
    if count := sum(row.last_hour for row in seen.dead):
        yield Problem("warn", f"{count} died in the last hour", "dead")


def _of_workers(seen: Overview) -> Iterator[Problem]:
    running = [worker for worker in seen.workers if worker.stopped_at is None]
    if not any(worker.alive and worker.ready for worker in running):
        yield Problem("bad", "no process is ready: nothing is carried", "processes")
    for worker in running:
        name = f"process {worker.pid}" + (f" on {worker.host}" if worker.host else "")
        if not worker.alive:
            yield Problem("warn", f"{name} is silent; what it had is taken over", "processes")
        elif not worker.ready:
            text = f"{name} is not ready" + (f": {worker.problem}" if worker.problem else "")
            yield Problem("warn", text, "processes")


class Overviews:
    """Reads the overview. Raises LedgerAway."""

    def __init__(self, lines: Lines, threshold: timedelta) -> None:
        self._lines = lines
        self._threshold = threshold

    async def overview(self, hours: float, step_minutes: int) -> Overview:
        """What stands now, and the flow of the last hours in such steps."""
        return await self._lines.run(lambda connection: self._read(connection, hours, step_minutes))

    async def _read(self, connection: Connection, hours: float, step_minutes: int) -> Overview:
        workers = await connection.fetch(WORKERS, self._threshold, SHOWN_FOR, WORKERS_MOST)
        [bookings] = await connection.fetch(BOOKINGS)
        look = await connection.fetchrow(LOOK)
        return Overview(
            at=await connection.fetchval("SELECT ledger_now()"),
            workers=tuple(WorkerRow(**row) for row in workers),
            flow=await flow_of(connection, hours, step_minutes),
            lanes=tuple(lane_row_of(row) for row in await connection.fetch(LIST)),
            waiting=tuple(Waiting(**row) for row in await connection.fetch(WAITING, CAUSES_MOST)),
            dead=tuple(DeadCause(**row) for row in await connection.fetch(DEAD, CAUSES_MOST)),
            bookings=OpenBookings(*bookings["running"], *bookings["uncertain"]),
            uncertain=tuple(
                UncertainBooking(**row) for row in await connection.fetch(UNCERTAIN, UNCERTAIN_SHOWN)
            ),
            look=Look(look["at"], json.loads(look["figures"])) if look else None,
        )
