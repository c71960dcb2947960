"""The client of a jobcenter's Planner: which meetings a citizen is offered (docs/contract.md#calls)."""

from __future__ import annotations

from broker.clients.calls import Call, Caller, CallKind
from broker.clients.http import HttpSystem
from schemas.external import Offer, Offers


class Planner:
    """One Planner system."""

    def __init__(self, system: HttpSystem) -> None:
        self._system = system

    @property
    def name(self) -> str:
        """The system's name in the directory."""
        return self._system.name

    async def offers(self, caller: Caller, contact_group: str, *, immediate: bool) -> tuple[Offer, ...]:
        """The offers (moedetilbud) of a contact group, perhaps none. Raises what `HttpSystem.call` raises for a read."""
        reply = await self._system.call(
            Call(
                "offers",
                CallKind.READ,
                "GET",
                "/v1/BorgerBooking/Moedetilbud",
                200,
                Offers,
                query=(("kontaktgruppe", contact_group), ("straksbooking", "true" if immediate else "false")),
            ),
            caller,
        )
        return tuple(reply.body.offers) if reply.body else ()
