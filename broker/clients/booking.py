"""The client of a jobcenter's booking system: one method for each call of the contract (docs/contract.md#calls)."""

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
    """One booking system. Every method raises what `HttpSystem.call` raises for its kind of call."""

    def __init__(self, system: HttpSystem) -> None:
        self._system = system

    @property
    def name(self) -> str:
        """The system's name in the directory."""
        return self._system.name

    @property
    def absence_proves_after_seconds(self) -> float:
        """How long after the last send an absent booking proves that it was not made (docs/architecture.md#unknown)."""
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
        """The free times of an offer, in the system's order, perhaps none."""
        filters = (
            ("fra", from_at and from_at.isoformat()),
            ("til", to_at and to_at.isoformat()),
            ("sagsbehandlerId", caseworker_id),
        )
        query = tuple((name, value) for name, value in filters if value)
        path = f"{_ROOT}/Moedetilbud/{offer_id}/Tider"
        reply = await self._system.call(
            Call("times", CallKind.READ, "GET", path, 200, Times, query=query), caller
        )
        return tuple(reply.body.times) if reply.body else ()

    async def find(self, caller: Caller, invitation_id: UUID) -> Booking | None:
        """The booking; None only if the system says `ukendt-booking` with a 404."""
        # A 404 without this fault means a wrong address: Misconfigured.
        call = Call(
            "find",
            CallKind.READ,
            "GET",
            _path(invitation_id),
            200,
            Booking,
            absent_fault=Fault.UNKNOWN_BOOKING,
            agrees=_has_id(invitation_id),
        )
        return (await self._system.call(call, caller)).body

    async def reserve(self, caller: Caller, invitation_id: UUID, wish: Wish) -> Reservation | None:
        """Reserve a time for a while. None: an earlier, unanswered try was received (412); go on to `create`."""
        path = f"{_path(invitation_id)}/action/reserver"
        call = Call("reserve", CallKind.RESERVE, "POST", path, 200, Reservation, body=wish.to_json())
        return (await self._system.call(call, caller)).body

    async def create(self, caller: Caller, invitation_id: UUID, wish: Wish) -> Booking:
        """Book, or move the booking that has this id."""
        call = Call(
            "create",
            CallKind.COMMIT,
            "POST",
            _path(invitation_id),
            201,
            Booking,
            body=wish.to_json(),
            agrees=_is_of(invitation_id, wish.offer_id),
        )
        return await self._booking_of(call, caller)

    async def accept(self, caller: Caller, invitation_id: UUID) -> Booking:
        """Accept a booking that the jobcenter made."""
        path = f"{_path(invitation_id)}/action/accepter"
        call = Call("accept", CallKind.COMMIT, "POST", path, 200, Booking, agrees=_has_id(invitation_id))
        return await self._booking_of(call, caller)

    async def cancel(self, caller: Caller, invitation_id: UUID) -> None:
        """Cancel a booking."""
        call: Call[Booking] = Call("cancel", CallKind.COMMIT, "DELETE", _path(invitation_id), 204, alone=True)
        await self._system.call(call, caller)

    async def _booking_of(self, call: Call[Booking], caller: Caller) -> Booking:
        reply = await self._system.call(call, caller)
        if reply.body is None:  # cannot happen: the call has a model, so a good answer has a body
            raise ContractBroken(CallFacts(self.name, call.step, "body", status=reply.status))
        return reply.body


def _path(invitation_id: UUID) -> str:
    return f"{_ROOT}/Booking/{invitation_id}"


def _has_id(invitation_id: UUID) -> Callable[[Booking], bool]:
    return lambda booking: booking.invitation_id == invitation_id


def _is_of(invitation_id: UUID, offer_id: UUID | None) -> Callable[[Booking], bool]:
    """The booking has this id and, where both name one, this offer."""
    return lambda booking: (
        booking.invitation_id == invitation_id
        and (offer_id is None or booking.offer_id is None or booking.offer_id == offer_id)
    )
