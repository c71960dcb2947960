"""The table: which message goes to which handler, on which queue, under which rules; and which story a queue has.

No I/O, no decorators.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any

from broker.handlers import bookings, citizen_reports, lookups, queries
from broker.rabbitmq import Arrival
from broker.rabbitmq.topology import BOOKINGS, CITIZEN_REPORTS, LANES, QUERIES
from broker.reports.enrichment import Addressee
from config.directory import Jobcenter
from schemas.answers import Result
from schemas.codes import Reason
from schemas.envelope import Request
from schemas.requests import (
    Accept,
    Book,
    BookImmediate,
    Cancel,
    CitizenReport,
    QueryOffers,
    QueryTimes,
    Rebook,
)

# A handler takes its own message class; the table pairs them, which the type system cannot express for a dict.
Handler = Callable[[Any, Any, Any], Awaitable[Result]]
Lookup = Callable[[Any, Any, Any], Awaitable[Result | None]]
Carry = Callable[[Arrival], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `claimed`: the ledger keeps it (R8). `turn`: one of a citizen at a time (R9).

    `lookup` reads whether an uncertain booking took place; None for a message that changes nothing outside.
    """

    message: type[Request]
    queue: str
    handler: Handler
    needs_contact_group: bool = False
    claimed: bool = True
    turn: bool = True
    lookup: Lookup | None = None


@dataclass(frozen=True, slots=True)
class RoutedRequest:
    """One valid request with its route, its addressee and its deadlines.

    `deadline_at` is wall time; `answer_by` is monotonic, seconds, already less the margin for the answer's way back.
    `refusal`: a rule refuses it before any call. `suspect`: it came on the suspect queue and is handled alone.
    """

    message: Request
    route: Route
    jobcenter: Jobcenter | None
    addressee: Addressee
    traceparent: str | None
    deadline_at: datetime
    answer_by: float
    refusal: Reason | None
    suspect: bool = False

    @property
    def late(self) -> bool:
        """Whether an answer would come after the citizen stopped waiting; a citizen's report is never late."""
        return self.message.EXPIRES and monotonic() >= self.answer_by


_TABLE = (
    Route(QueryOffers, QUERIES, queries.offers, needs_contact_group=True, claimed=False, turn=False),
    Route(QueryTimes, QUERIES, queries.times, needs_contact_group=True, claimed=False, turn=False),
    Route(Book, BOOKINGS, bookings.book, needs_contact_group=True, lookup=lookups.booked),
    Route(BookImmediate, BOOKINGS, bookings.book, needs_contact_group=True, lookup=lookups.booked),
    Route(Rebook, BOOKINGS, bookings.rebook, needs_contact_group=True, lookup=lookups.moved),
    Route(Accept, BOOKINGS, bookings.accept, lookup=lookups.accepted),
    Route(Cancel, BOOKINGS, bookings.cancel, lookup=lookups.cancelled),
    Route(CitizenReport, CITIZEN_REPORTS, citizen_reports.receive, turn=False),
)

ROUTES: dict[str, Route] = {route.message.TYPE: route for route in _TABLE}
"""By full AMQP type, for example `booking.book.v1`."""


def by_queue(*, requests: Carry, lanes: Carry) -> Carry:
    """The story of each consumed queue: lanes carry reports (broker/reports/delivery.py), all others requests."""

    async def carry(arrival: Arrival) -> None:
        await (lanes if arrival.queue.startswith(LANES) else requests)(arrival)

    return carry
