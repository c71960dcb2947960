"""Look-ups of bookings whose outcome is unknown: one read each, never a change (docs/architecture.md#unknown).

A function returns the result that the read proves, or None if the read shows no trace of the wanted change. None alone
proves nothing, because the system may still be working on the call; broker/requests/verifier.py decides when it does.
"""

from __future__ import annotations

from broker.clients import Clients
from broker.clients.http import Caller
from schemas.answers import BookingResult, CancelledResult
from schemas.external import Booking
from schemas.ids import invitation_of
from schemas.requests import Accept, Book, BookImmediate, Cancel, Rebook


async def booked(message: Book | BookImmediate, caller: Caller, clients: Clients) -> BookingResult | None:
    """We chose the indkaldelseId, so a booking under it is this one."""
    found = await clients.booking.find(caller, invitation_of(message.request_id))
    return BookingResult(booking=found) if found else None


async def moved(message: Rebook, caller: Caller, clients: Clients) -> BookingResult | None:
    """The booking with the wanted start, form and (if named) caseworker."""
    found = await clients.booking.find(caller, message.invitation_id)
    return BookingResult(booking=found) if found and is_as_wanted(found, message) else None


async def accepted(message: Accept, caller: Caller, clients: Clients) -> BookingResult | None:
    """The booking's `accepteret` flag."""
    found = await clients.booking.find(caller, message.invitation_id)
    return BookingResult(booking=found) if found and found.accepted else None


async def cancelled(message: Cancel, caller: Caller, clients: Clients) -> CancelledResult | None:
    """Gone: proved only by the contract's fault `ukendt-booking`."""
    found = await clients.booking.find(caller, message.invitation_id)
    return CancelledResult(invitation_id=message.invitation_id) if found is None else None


def is_as_wanted(found: Booking, message: Rebook) -> bool:
    """Whether a found booking has the start, form and caseworker that the move asked for."""
    return (
        found.starts_at == message.starts_at
        and found.form == message.form
        and message.caseworker_id in (None, found.caseworker.id)
    )
