"""What citizens ask for in one run: bookings of all types, failing ones, queries, their own reports; from the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sandbox.system_layout import GROUP_WITHOUT_OFFERS
from schemas.ids import invitation_of
from tests.functional.running_broker import ROOM, RunningBroker, booking, cpr_of, request

JOBCENTERS = ("90001", "90002")
UNKNOWN_JOBCENTER = "99999"
MOST_REQUESTS = 1500
"""Bookings and seeded meetings each need a time of their own in the calendars (3200 in each)."""

# (what, how many in a hundred)
MIX = (
    ("book", 38),
    ("immediate", 8),
    ("rebook", 7),
    ("accept", 6),
    ("cancel", 6),
    ("rejected", 8),  # the booking system says a bare 400: failed, and its supplier is told
    ("swallowed", 2),  # create says 500 and does nothing: uncertain, then failed
    ("hidden", 3),  # create works and the connection breaks: uncertain, or found
    ("refused", 5),
    ("offers", 4),
    ("times", 4),
    ("words", 9),  # what a citizen writes
)
TYPES = {
    "immediate": "booking.immediate.v1",
    "rebook": "booking.rebook.v1",
    "accept": "booking.accept.v1",
    "cancel": "booking.cancel.v1",
    "offers": "query.offers.v1",
    "times": "query.times.v1",
    "words": "report.citizen.v1",
}
QUERIES = ("offers", "times")


@dataclass
class Errand:
    """One request. `invitation`: the meeting it is about. `copies`: how often the frontend sends it."""

    number: int
    what: str
    type: str
    jobcenter: str
    body: dict[str, Any] = field(repr=False)
    invitation: UUID | None = None
    copies: int = 1
    sent_at: datetime | None = None
    taken: bool = False
    """Whether RabbitMQ confirmed it: from then on it is the broker's."""

    @property
    def request_id(self) -> str:
        return str(self.body["requestId"])

    @property
    def system(self) -> int | None:
        """The number of the booking system that its answer needs."""
        asks_none = self.what in ("words", "offers") or self.jobcenter not in JOBCENTERS
        return None if asks_none else JOBCENTERS.index(self.jobcenter) + 1

    def now(self) -> dict[str, Any]:
        """The body as it is sent first; the same for every copy after that."""
        if self.sent_at is None:
            self.sent_at = datetime.now(UTC)
            self.body["sentAt"] = self.sent_at.isoformat()
        return self.body


class Load:
    """All errands of a seed, and what they need in the sandbox's books and scripts."""

    def __init__(self, seed: int, count: int, broker: RunningBroker) -> None:
        if count > MOST_REQUESTS:
            raise ValueError(f"at most {MOST_REQUESTS} requests: each needs a time of its own")
        self._chance = random.Random(f"load {seed}")  # noqa: S311  a seed, so that the same requests come again
        self._broker = broker
        self._count = count
        self.errands: list[Errand] = []
        for number, what in enumerate(self._whats()):
            self.errands.append(self._errand(number, what))

    def _whats(self) -> Iterator[str]:
        names, weights = zip(*MIX, strict=True)
        yield from self._chance.choices(names, weights, k=self._count)

    def _errand(self, number: int, what: str) -> Errand:
        jobcenter = self._chance.choice(JOBCENTERS)
        request_id = UUID(int=self._chance.getrandbits(128), version=4)
        body = getattr(self, f"_{what}", self._book)(number, jobcenter)
        body |= {"requestId": str(request_id)}
        invitation = body.get("indkaldelseId")
        errand = Errand(
            number,
            what,
            TYPES.get(what, "booking.book.v1"),
            str(body["jobcenterkode"]),
            body,
            UUID(invitation) if invitation else invitation_of(request_id),
            copies=2 if self._chance.random() < 0.06 else 1,
        )
        self._prepare(errand)
        return errand

    # -- bodies ------------------------------------------------------------------------------------------------

    def _book(self, number: int, jobcenter: str) -> dict[str, Any]:
        return booking(self._broker, number, jobcenter)

    def _rebook(self, number: int, jobcenter: str) -> dict[str, Any]:
        body = booking(self._broker, number, jobcenter, indkaldelseId=self._held(number, jobcenter))
        del body["moedetilbudId"]
        return body

    def _accept(self, number: int, jobcenter: str) -> dict[str, Any]:
        return request(number, jobcenter, indkaldelseId=self._held(number, jobcenter, accepted=False))

    def _cancel(self, number: int, jobcenter: str) -> dict[str, Any]:
        return request(number, jobcenter, indkaldelseId=self._held(number, jobcenter))

    def _held(self, number: int, jobcenter: str, *, accepted: bool = True) -> str:
        """A meeting that this citizen had before, at a time that nobody else wants."""
        before = booking(self._broker, self._count + number, jobcenter)
        invitation = str(UUID(int=self._chance.getrandbits(128), version=4))
        self._broker.sandbox.booking_system_of(jobcenter).seed(
            {
                "jobcenter": jobcenter,
                "kind": ROOM.name,
                "starts_at": before["starttidspunkt"],
                "form": before["moedeform"],
                "caseworker_id": before["sagsbehandlerId"],
                "invitation": invitation,
                "cpr": cpr_of(number),
                "accepted": accepted,
            }
        )
        return invitation

    def _refused(self, number: int, jobcenter: str) -> dict[str, Any]:
        """No contact group, a form that does not exist, or a jobcenter that nobody knows."""
        wrong: dict[str, Any] = self._chance.choice(
            ({"kontaktgruppe": None}, {"moedeform": "raadhuset"}, {"jobcenterkode": UNKNOWN_JOBCENTER})
        )
        return booking(self._broker, number, jobcenter, **wrong)

    def _offers(self, number: int, jobcenter: str) -> dict[str, Any]:
        return request(number, jobcenter, kontaktgruppe=self._chance.choice(("1", "1", GROUP_WITHOUT_OFFERS)))

    def _times(self, number: int, jobcenter: str) -> dict[str, Any]:
        offer = booking(self._broker, number, jobcenter)["moedetilbudId"]
        return request(number, jobcenter, kontaktgruppe="1", moedetilbudId=offer)

    def _words(self, number: int, jobcenter: str) -> dict[str, Any]:
        """About a rejected booking of an earlier citizen's own if there is one, else about nothing in particular."""
        text = f"Siden gik i stå, siger borger nr. {number}."
        rejected = [errand for errand in self.errands if errand.what == "rejected"]
        if not rejected or self._chance.random() < 0.4:
            return request(number, jobcenter, fejlkode=4, fejltekst=text)
        failed = self._chance.choice(rejected)
        return request(
            failed.number, failed.jobcenter, fejlkode=4, fejltekst=text, failedRequestId=failed.request_id
        )

    # -- what the outside does ------------------------------------------------------------------------------

    def _prepare(self, errand: Errand) -> None:
        steps: dict[str, tuple[str, str, dict[str, Any]]] = {
            "rejected": ("reserve", "status", {"status": 400}),
            "swallowed": ("create", "status", {"status": 500}),
            "hidden": ("create", "reset", {"after_work": True, "times": 1}),
        }
        if errand.what in steps:
            operation, action, how = steps[errand.what]
            system = self._broker.sandbox.booking_system_of(errand.jobcenter)
            system.script(operation, action, **{"times": None, "invitation": str(errand.invitation), **how})
