"""How a booking whose fate is unknown is looked up: one read each, never a change (DESIGN 5, "Unknown").

A function returns the result that the read proves, or None when the read shows no trace of the wanted change.
None proves nothing by itself: the system may still be working on the call. When it does, `broker.requests.verifier` knows.
"""

from __future__ import annotations

from broker.clients import Clients
from broker.clients.http import Caller
from schemas.answers import BookingResult, CancelledResult
from schemas.external import Booking
from schemas.ids import invitation_of
from schemas.requests import Accept, Book, BookImmediate, Cancel, Rebook


async def booked(message: Book | BookImmediate, caller: Caller, clients: Clients) -> BookingResult | None:
    """The indkaldelseId is ours, so any presence is the booking."""
    found = await clients.booking.find(caller, invitation_of(message.request_id))
    return BookingResult(booking=found) if found else None


async def moved(message: Rebook, caller: Caller, clients: Clients) -> BookingResult | None:
    """The booking with the wanted start, form and, if one was asked for, caseworker."""
    found = await clients.booking.find(caller, message.invitation_id)
    return BookingResult(booking=found) if found and is_as_wanted(found, message) else None


async def accepted(message: Accept, caller: Caller, clients: Clients) -> BookingResult | None:
    """The booking's own flag."""
    found = await clients.booking.find(caller, message.invitation_id)
    return BookingResult(booking=found) if found and found.accepted else None


async def cancelled(message: Cancel, caller: Caller, clients: Clients) -> CancelledResult | None:
    """Gone, said by the contract's own fault for an unknown booking and by nothing else."""
    found = await clients.booking.find(caller, message.invitation_id)
    return CancelledResult(invitation_id=message.invitation_id) if found is None else None


def is_as_wanted(found: Booking, message: Rebook) -> bool:
    """Whether a found booking is the one that the move asked for."""
    return (
        found.starts_at == message.starts_at
        and found.form == message.form
        and message.caseworker_id in (None, found.caseworker.id)
    )
