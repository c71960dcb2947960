"""The Jobnet page's view of the sandbox, read from the desk: its systems and jobcenters, and invitations to meetings.

A real Jobnet has no such access. Only the switches, the inboxes and the meetings to which a jobcenter invites a citizen
use it. Bookings go through the broker alone.
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
MEETING_LENGTH = timedelta(minutes=30)


@dataclass(frozen=True)
class Jobcenter:
    """A jobcenter and the systems that serve it."""

    name: str
    planner: str
    booking_system: str
    supplier: str


class SandboxClient:
    """The systems and jobcenters of the sandbox. `open` reads them once, because they do not change."""

    def __init__(self, desk: DeskClient, index: dict[str, Any]) -> None:
        self.desk = desk
        self.first_day = date.fromisoformat(index["first_day"])
        self.jobcenters = {code: Jobcenter(**plan) for code, plan in index["jobcenters"].items()}
        self.systems: dict[str, dict[str, Any]] = index["systems"]

    @classmethod
    async def open(cls, desk: DeskClient) -> SandboxClient:
        """Read the desk's index. Raises aiohttp.ClientError when the sandbox does not answer."""
        return cls(desk, await desk.index())

    def of_kind(self, kind: str) -> list[str]:
        """The names of the systems of a kind: planner, booking system, supplier."""
        return [name for name, system in self.systems.items() if system["kind"] == kind]

    def system(self, name: str) -> dict[str, Any]:
        """The entry of one system in the desk's index. Raises Unknown."""
        if name not in self.systems:
            raise Unknown(name)
        return self.systems[name]

    async def invite(self, citizen: Citizen) -> Meeting | None:
        """Insert a meeting that the citizen has not accepted yet; None if every time for it is taken."""
        system = self.jobcenters[citizen.jobcenter].booking_system
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
        """The meeting in the format in which a Planner would announce it to Jobnet."""
        at = slot_time(self.first_day, PROPOSED_DAY, number)
        until = (at - CHANGE_NOTICE).isoformat()
        return {
            "indkaldelseId": seed["invitation"],
            "moedetilbudId": str(offer_id(seed["jobcenter"], PROPOSED_KIND)),
            "starttidspunkt": seed["starts_at"],
            "sluttidspunkt": (at + MEETING_LENGTH).isoformat(),
            "sagsbehandler": {"id": seed["caseworker_id"], "navn": CASEWORKERS[0]},
            "moedeform": seed["form"],
            "accepteret": False,
            "kanOmbookes": True,
            "ombookingsfrist": until,
            "kanAflyses": True,
            "aflysningsfrist": until,
        }
