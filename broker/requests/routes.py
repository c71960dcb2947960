"""The table: which message goes to which handler, on which queue, under which rules. No I/O, no decorators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from broker.handlers import bookings, citizen_reports, queries
from broker.handlers import lookups as verification
from broker.rabbitmq.topology import BOOKINGS, CITIZEN_REPORTS, QUERIES
from schemas.answers import Result
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


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `claimed`: the ledger keeps it (rule 8). `turn`: one of a citizen at a time (rule 9).

    `lookup` is how its uncertain ones are verified; what has none leaves the house with nothing to verify.
    """

    message: type[Request]
    queue: str
    handler: Handler
    needs_contact_group: bool = False
    claimed: bool = True
    turn: bool = True
    lookup: Lookup | None = None


_TABLE = (
    Route(QueryOffers, QUERIES, queries.offers, needs_contact_group=True, claimed=False, turn=False),
    Route(QueryTimes, QUERIES, queries.times, needs_contact_group=True, claimed=False, turn=False),
    Route(Book, BOOKINGS, bookings.book, needs_contact_group=True, lookup=verification.booked),
    Route(BookImmediate, BOOKINGS, bookings.book, needs_contact_group=True, lookup=verification.booked),
    Route(Rebook, BOOKINGS, bookings.rebook, needs_contact_group=True, lookup=verification.moved),
    Route(Accept, BOOKINGS, bookings.accept, lookup=verification.accepted),
    Route(Cancel, BOOKINGS, bookings.cancel, lookup=verification.cancelled),
    Route(CitizenReport, CITIZEN_REPORTS, citizen_reports.receive, turn=False),
)

ROUTES: dict[str, Route] = {route.message.TYPE: route for route in _TABLE}
"""By full AMQP type, for example `booking.book.v1`."""
