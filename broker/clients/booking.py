"""The booking system of a jobcenter (DESIGN 4): one method per call of the contract.

It judges nothing and combines nothing; that a 412 after a lost reserve means "go on to create" is the
contract's rule.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from broker.clients.calls import Call, Caller, CallKind
from broker.clients.http import HttpSystem
from broker.errors import CallFacts, ContractBroken
from schemas.codes import Fault
from schemas.external import Booking, MeetingTime, Reservation, Times, Wish

_ROOT = "/v1/BorgerBooking"


class BookingSystem:
    """One booking system. Every method raises what `HttpSystem.call` says of its kind."""

    def __init__(self, system: HttpSystem) -> None:
        self._system = system

    @property
    def name(self) -> str:
        """The system's name in the directory."""
        return self._system.name

    @property
    def absence_proves_after_seconds(self) -> float:
        """How long after a send the absence of a booking begins to prove that there is none (DESIGN 5)."""
        return self._system.limits.absence_proves_after_seconds

    async def times(
        self,
        caller: Caller,
        offer_id: UUID,
        *,
        from_at: datetime | None = None,
        to_at: datetime | None = None,
        caseworker_id: str | None = None,
    ) -> tuple[MeetingTime, ...]:
        """The free times of an offer, in the system's own order, perhaps none."""
        asked = (
            ("fra", from_at and from_at.isoformat()),
            ("til", to_at and to_at.isoformat()),
            ("sagsbehandlerId", caseworker_id),
        )
        query = tuple((name, value) for name, value in asked if value)
        path = f"{_ROOT}/Moedetilbud/{offer_id}/Tider"
        reply = await self._system.call(
            Call("times", CallKind.READ, "GET", path, 200, Times, query=query), caller
        )
        return tuple(reply.body.times) if reply.body else ()

    async def find(self, caller: Caller, invitation_id: UUID) -> Booking | None:
        """The booking; None only if the system says `ukendt-booking` with a 404.

        A bare 404 is a wrong address.
        """
        call = Call(
            "find",
            CallKind.READ,
            "GET",
            _booking(invitation_id),
            200,
            Booking,
            absent_fault=Fault.UNKNOWN_BOOKING,
            agrees=_is(invitation_id),
        )
        return (await self._system.call(call, caller)).body

    async def reserve(self, caller: Caller, invitation_id: UUID, wish: Wish) -> Reservation | None:
        """Holds a time for a while. None: an unanswered try was received (412), go on to create."""
        path = f"{_booking(invitation_id)}/action/reserver"
        call = Call("reserve", CallKind.RESERVE, "POST", path, 200, Reservation, body=wish.to_json())
        return (await self._system.call(call, caller)).body

    async def create(self, caller: Caller, invitation_id: UUID, wish: Wish) -> Booking:
        """Books, or moves the booking that has this id."""
        call = Call(
            "create",
            CallKind.COMMIT,
            "POST",
            _booking(invitation_id),
            201,
            Booking,
            body=wish.to_json(),
            agrees=_is(invitation_id),
        )
        return await self._booked(call, caller)

    async def accept(self, caller: Caller, invitation_id: UUID) -> Booking:
        """Accepts a booking that the jobcenter made."""
        path = f"{_booking(invitation_id)}/action/accepter"
        call = Call("accept", CallKind.COMMIT, "POST", path, 200, Booking, agrees=_is(invitation_id))
        return await self._booked(call, caller)

    async def cancel(self, caller: Caller, invitation_id: UUID) -> None:
        """Cancels a booking."""
        call: Call[Booking] = Call("cancel", CallKind.COMMIT, "DELETE", _booking(invitation_id), 204)
        await self._system.call(call, caller)

    async def _booked(self, call: Call[Booking], caller: Caller) -> Booking:
        reply = await self._system.call(call, caller)
        if reply.body is None:  # the call names a model, so a good answer has a body
            raise ContractBroken(CallFacts(self.name, call.step, "body", status=reply.status))
        return reply.body


def _booking(invitation_id: UUID) -> str:
    return f"{_ROOT}/Booking/{invitation_id}"


def _is(invitation_id: UUID) -> Callable[[Booking], bool]:
    return lambda booking: booking.invitation_id == invitation_id
