"""Handlers of booking messages: book, straksbook, rebook, accept, cancel (docs/contract.md#calls).

Each function ends with exactly one create, accept or cancel. An unused reservation lapses in the booking system.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from broker.clients import Clients
from broker.clients.http import Caller
from broker.errors import Refused
from schemas.answers import BookingResult, CancelledResult
from schemas.codes import Reason
from schemas.external import Booking, MeetingTime, Wish
from schemas.ids import invitation_of
from schemas.requests import Accept, Book, BookImmediate, Cancel, Rebook

TIMES_WINDOW = timedelta(days=1)
"""The window of times, from the wanted start, in which a choice is checked (R3; docs/adr/0003)."""


async def book(message: Book | BookImmediate, caller: Caller, clients: Clients) -> BookingResult:
    """Check the choice against the system's own times, reserve, create (R3)."""
    # Of all caseworkers, so that a caseworker without this time is refused as such (docs/adr/0008).
    found = await clients.booking.times(
        caller,
        message.offer_id,
        from_at=message.starts_at,
        to_at=message.starts_at + TIMES_WINDOW,
    )
    wish = wish_of(message)
    check_choice(wish, found)
    invitation_id = invitation_of(message.request_id)
    await clients.booking.reserve(caller, invitation_id, wish)
    return BookingResult(booking=await clients.booking.create(caller, invitation_id, wish))


async def rebook(message: Rebook, caller: Caller, clients: Clients) -> BookingResult:
    """Move a meeting: read it and check that it may move, reserve, create under the same indkaldelseId."""
    held = await clients.booking.find(caller, message.invitation_id)
    check_movable(held)
    wish = wish_of(message)
    await clients.booking.reserve(caller, message.invitation_id, wish)
    return BookingResult(booking=await clients.booking.create(caller, message.invitation_id, wish))


async def accept(message: Accept, caller: Caller, clients: Clients) -> BookingResult:
    """Accept a meeting that the jobcenter proposed."""
    return BookingResult(booking=await clients.booking.accept(caller, message.invitation_id))


async def cancel(message: Cancel, caller: Caller, clients: Clients) -> CancelledResult:
    """Cancel a meeting."""
    await clients.booking.cancel(caller, message.invitation_id)
    return CancelledResult(invitation_id=message.invitation_id)


def wish_of(message: Book | BookImmediate | Rebook) -> Wish:
    """The body of reserve and create; a move has no moedetilbudId (R7)."""
    return Wish(
        offer_id=None if isinstance(message, Rebook) else message.offer_id,
        starts_at=message.starts_at,
        form=message.form,
        caseworker_id=message.caseworker_id,
    )


def check_choice(wish: Wish, found: Iterable[MeetingTime]) -> None:
    """Refuse a start, caseworker or mødeform that is not offered; a form is never changed silently (R3)."""
    at_start = [time for time in found if time.starts_at == wish.starts_at]
    if not at_start:
        raise Refused(Reason.TIME_NOT_OFFERED)
    with_caseworker = [t for t in at_start if wish.caseworker_id in (None, t.caseworker.id)]
    if not with_caseworker:
        raise Refused(Reason.CASEWORKER_NOT_OFFERED)
    if not any(wish.form in time.forms for time in with_caseworker):
        raise Refused(Reason.FORM_NOT_OFFERED)


def check_movable(held: Booking | None, now: datetime | None = None) -> None:
    """Refuse to move a meeting that does not exist, may not move, or whose ombookingsfrist has passed."""
    if held is None:
        raise Refused(Reason.UNKNOWN_BOOKING)
    late = held.rebook_by is not None and held.rebook_by < (now or datetime.now(UTC))
    if late or not held.can_rebook:
        raise Refused(Reason.REBOOKING_NOT_POSSIBLE)
