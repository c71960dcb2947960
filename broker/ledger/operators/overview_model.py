"""The overview in words: what it is made of, and what of it is not well, in sentences.

Plain frozen data and a judgement; no I/O. overview.py reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from broker.lanes.lane import LaneState
from broker.ledger.model import WorkerRow
from broker.ledger.operators.flow import Flow
from broker.ledger.reports.report_model import LaneRow

LOOK_TOO_OLD = timedelta(minutes=10)
"""Conservation is looked at every minute; a look that old means that nobody looks."""


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
class ConservationResult:
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
    look: ConservationResult | None

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
