"""The table: which message goes to which handler, on which queue, under which rules. No I/O, no decorators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from broker.handlers import bookings, queries, verification
from broker.topology import BOOKINGS, QUERIES
from schemas.answers import Result
from schemas.envelope import Request
from schemas.requests import Accept, Book, BookImmediate, Cancel, QueryOffers, QueryTimes, Rebook

# A handler takes its own message class; the table pairs them, which the type system cannot express for a dict.
Handler = Callable[[Any, Any, Any], Awaitable[Result]]
Lookup = Callable[[Any, Any, Any], Awaitable[Result | None]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row: `lookup` is how its uncertain ones are verified; a row without one changes nothing and is not claimed."""

    message: type[Request]
    queue: str
    handler: Handler
    needs_contact_group: bool
    lookup: Lookup | None = None

    @property
    def claimed(self) -> bool:
        """Whether the ledger keeps it: bookings are claimed, queries may be repeated freely (rule 8)."""
        return self.lookup is not None


_TABLE = (
    Route(QueryOffers, QUERIES, queries.offers, needs_contact_group=True),
    Route(QueryTimes, QUERIES, queries.times, needs_contact_group=True),
    Route(Book, BOOKINGS, bookings.book, needs_contact_group=True, lookup=verification.booked),
    Route(BookImmediate, BOOKINGS, bookings.book, needs_contact_group=True, lookup=verification.booked),
    Route(Rebook, BOOKINGS, bookings.rebook, needs_contact_group=True, lookup=verification.moved),
    Route(Accept, BOOKINGS, bookings.accept, needs_contact_group=False, lookup=verification.accepted),
    Route(Cancel, BOOKINGS, bookings.cancel, needs_contact_group=False, lookup=verification.cancelled),
)

ROUTES: dict[str, Route] = {route.message.TYPE: route for route in _TABLE}
"""By full AMQP type, for example `booking.book.v1`."""
