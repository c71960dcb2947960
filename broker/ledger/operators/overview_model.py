"""Types of the overview, and the problems derived from it as sentences for operators. No I/O; overview.py reads it."""

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

CHECK_TOO_OLD = timedelta(minutes=10)
"""Conservation is checked every minute; an older result means that no process checks it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Reports that wait on a lane, by the cause of their last failure; `cause` is None before the first attempt."""

    supplier: str | None
    state: str
    cause: str | None
    count: int
    oldest_at: datetime
    next_due_at: datetime


@dataclass(frozen=True, slots=True)
class DeadCause:
    """Open dead letters of one cause, over all suppliers. `last_hour`: how many of them died in the last hour."""

    kind: str
    cause: str
    cause_class: str
    count: int
    oldest_at: datetime
    newest_at: datetime
    last_hour: int


@dataclass(frozen=True, slots=True)
class OpenBookings:
    """Requests in progress, and bookings whose result is not known yet."""

    running: int
    oldest_running_at: datetime | None
    uncertain: int
    oldest_uncertain_at: datetime | None


@dataclass(frozen=True, slots=True)
class UncertainBooking:
    """A booking that was sent and whose result is unknown; `verify_due_at`: when it is looked up next."""

    request_id: UUID
    type: str
    booking_system: str
    since: datetime
    verify_due_at: datetime | None
    verify_tries: int


@dataclass(frozen=True, slots=True)
class ConservationResult:
    """The last conservation check: its time, and its figures: `gaps`, `kinds` of gaps, and some of them `named`."""

    at: datetime
    figures: dict[str, Any]

    @property
    def gaps(self) -> int:
        """How many requests and reports are unaccounted for."""
        return int(self.figures.get("gaps", 0))

    @property
    def named(self) -> list[dict[str, str]]:
        """Some of the gaps, each with its kind (`gap`) and `id`."""
        return list(self.figures.get("named", []))


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem as a sentence. `level`: `bad` needs a person now, `warn` soon.

    `about`: processes, conservation, lane, bookings or dead; `subject`: the supplier, for a lane.
    """

    level: str
    text: str
    about: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """The contents of the first page. `at`: the ledger's clock; `look`: the last conservation check."""

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
        """The worst first; empty means healthy."""
        return tuple(sorted(_problems(self), key=lambda problem: problem.level))

    @property
    def oldest_at(self) -> datetime | None:
        """Start of the oldest open request, waiting report or dead letter."""
        ages = [row.oldest_at for row in self.waiting] + [row.oldest_at for row in self.dead]
        ages += [at for at in (self.bookings.oldest_running_at, self.bookings.oldest_uncertain_at) if at]
        return min(ages, default=None)


def _problems(overview: Overview) -> Iterator[Problem]:
    yield from _of_workers(overview)
    yield from _of_conservation(overview)
    for row in overview.lanes:
        lane = row.lane
        if lane.attention:
            yield Problem("bad", lane.attention, "lane", lane.supplier)
        elif lane.state is not LaneState.OPEN:
            text = (
                f"lane {lane.supplier} is {lane.state.value}; {_count(row.waiting, 'report')} waiting on it"
            )
            yield Problem("warn", text, "lane", lane.supplier)
    if count := overview.bookings.uncertain:
        yield Problem(
            "warn", f"{count} {'booking is' if count == 1 else 'bookings are'} uncertain", "bookings"
        )
    if count := sum(row.last_hour for row in overview.dead):
        yield Problem("warn", f"{_count(count, 'dead letter')} in the last hour", "dead")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _of_conservation(overview: Overview) -> Iterator[Problem]:
    check = overview.look
    if check is None or overview.at - check.at > CHECK_TOO_OLD:
        yield Problem("warn", "no process checks that every request is accounted for", "conservation")
    elif check.gaps:
        text = f"requests or reports unaccounted for: {check.gaps}; see: jobnet-broker ledger conserve"
        yield Problem("bad", text, "conservation")


def _of_workers(overview: Overview) -> Iterator[Problem]:
    running = [worker for worker in overview.workers if worker.stopped_at is None]
    if not any(worker.alive and worker.ready for worker in running):
        yield Problem("bad", "no process is ready: no requests are handled", "processes")
    for worker in running:
        name = f"process {worker.pid}" + (f" on {worker.host}" if worker.host else "")
        if not worker.alive:
            yield Problem("warn", f"{name} has no heartbeat; other processes take over its work", "processes")
        elif not worker.ready:
            text = f"{name} is not ready" + (f": {worker.problem}" if worker.problem else "")
            yield Problem("warn", text, "processes")
