"""What the Jobnet page knows of the sandbox and does with it, through the desk: who serves whom, and first meetings.

A real Jobnet has no such door; only the pages for trying things, and the meeting that a jobcenter called the citizen
in for, come this way. Bookings go through the broker alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from uuid import uuid4

from sandbox.books import CHANGE_NOTICE
from sandbox.desk_client import DeskClient
from sandbox.jobnet.citizens import Citizen
from sandbox.jobnet.request_store import Meeting, Unknown
from sandbox.system_layout import CASEWORKERS, IN_PERSON, offer_id, slot_time

PROPOSED_KIND, PROPOSED_DAY, PROPOSED_TIMES = "tre-former", 9, range(12)
LASTS = timedelta(minutes=30)


@dataclass(frozen=True)
class Jobcenter:
    """A jobcenter and who serves it."""

    name: str
    planner: str
    booking_system: str
    supplier: str


class SandboxClient:
    """The sandbox as its desk tells it. `open` reads it once: who serves whom does not change."""

    def __init__(self, desk: DeskClient, index: dict[str, Any]) -> None:
        self.desk = desk
        self.first_day = date.fromisoformat(index["first_day"])
        self.places = {code: Jobcenter(**told) for code, told in index["jobcenters"].items()}
        self.systems: dict[str, dict[str, Any]] = index["systems"]

    @classmethod
    async def open(cls, desk: DeskClient) -> SandboxClient:
        """Raises aiohttp.ClientError when the sandbox is not there."""
        return cls(desk, await desk.index())

    def of_kind(self, kind: str) -> list[str]:
        """The names of the systems of a kind: planner, booking system, supplier."""
        return [name for name, told in self.systems.items() if told["kind"] == kind]

    def told(self, system: str) -> dict[str, Any]:
        """What the desk's index says of one system. Raises Unknown."""
        if system not in self.systems:
            raise Unknown(system)
        return self.systems[system]

    async def call_in(self, citizen: Citizen) -> Meeting | None:
        """The jobcenter calls the citizen to a meeting that still wants a yes; None if every such time is taken."""
        system = self.places[citizen.jobcenter].booking_system
        for number in PROPOSED_TIMES:
            seed = self._seed(citizen, number)
            try:
                await self.desk.control({"system": system, "do": "seed", "with": seed})
            except ValueError:
                continue
            return self._meeting(seed, number)
        return None

    def _seed(self, citizen: Citizen, number: int) -> dict[str, Any]:
        return {
            "jobcenter": citizen.jobcenter,
            "kind": PROPOSED_KIND,
            "invitation": str(uuid4()),
            "cpr": citizen.cpr,
            "starts_at": slot_time(self.first_day, PROPOSED_DAY, number).isoformat(),
            "form": IN_PERSON,
            "caseworker_id": f"{citizen.jobcenter}-{PROPOSED_KIND}-1",
            "accepted": False,
        }

    def _meeting(self, seed: dict[str, Any], number: int) -> Meeting:
        """The same meeting as a Planner would have told Jobnet of it."""
        at = slot_time(self.first_day, PROPOSED_DAY, number)
        until = (at - CHANGE_NOTICE).isoformat()
        return {
            "indkaldelseId": seed["invitation"],
            "moedetilbudId": str(offer_id(seed["jobcenter"], PROPOSED_KIND)),
            "starttidspunkt": seed["starts_at"],
            "sluttidspunkt": (at + LASTS).isoformat(),
            "sagsbehandler": {"id": seed["caseworker_id"], "navn": CASEWORKERS[0]},
            "moedeform": seed["form"],
            "accepteret": False,
            "kanOmbookes": True,
            "ombookingsfrist": until,
            "kanAflyses": True,
            "aflysningsfrist": until,
        }
