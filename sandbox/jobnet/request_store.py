"""What Jobnet remembers: the requests that it sent for its citizens, their answers, and the meetings that came of them.

In memory and bounded: the oldest go first. Rules that every frontend should keep are here: one requestId for life,
the same again for a repeat, and what to do when an answer says `uncertain`.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import uuid4

from sandbox.jobnet.broker_client import Event, NoAnswer
from sandbox.jobnet.citizens import Citizen
from sandbox.jobnet.danish import NO_ANSWER

MOST_ASKED = 2_000
MOST_MEETINGS = 50
DEADLINE = timedelta(seconds=9)
# An event can be missed while the connection is away; the stored answer costs the broker little.
ASK_AGAIN_S = 15.0
REPORT = "report.citizen.v1"
WITHOUT_GROUP = ("booking.accept.v1", "booking.cancel.v1", REPORT)
OPEN = ("uncertain", "no-answer")
NOTHING_CAME = {"status": "no-answer", "text": NO_ANSWER}

Meeting = Mapping[str, Any]


class RequestSender(Protocol):
    """Whoever carries a request to the broker: see broker_client.py."""

    async def ask(self, type_: str, body: Mapping[str, Any]) -> dict[str, Any]: ...


class Unknown(LookupError):
    """Nothing of that name is remembered here."""


@dataclass
class SentRequest:
    """One request and what is known of it. `told`: its last word is out, and a repeat will bring it.

    `asked_at` is when it was sent the last time, on the clock that only runs forward.
    """

    citizen: Citizen
    type: str
    fields: dict[str, Any]
    request_id: str
    answer: Mapping[str, Any]
    told: bool = False
    asked_at: float = 0.0

    @property
    def status(self) -> str:
        """How it ended, or `no-answer`."""
        return str(self.answer["status"])

    @property
    def is_open(self) -> bool:
        """Whether nobody knows yet what became of it."""
        return self.status in OPEN

    @property
    def is_query(self) -> bool:
        """Whether it changes nothing."""
        return self.type.startswith("query.")

    @property
    def is_immediate(self) -> bool:
        """Whether it was about straksbooking."""
        return self.type == "booking.immediate.v1" or bool(self.fields.get("straksbooking"))

    def body(self, now: datetime) -> dict[str, Any]:
        """The message. A repeat has a new sentAt and deadline; everything else stays as it was."""
        common: dict[str, Any] = {
            "requestId": self.request_id,
            "sentAt": now.isoformat(),
            "cpr": self.citizen.cpr,
            "jobcenterkode": self.citizen.jobcenter,
        }
        if self.type != REPORT:  # a report never comes too late
            common["deadline"] = (now + DEADLINE).isoformat()
        if self.type not in WITHOUT_GROUP and self.citizen.group is not None:
            common["kontaktgruppe"] = self.citizen.group
        return common | {name: value for name, value in self.fields.items() if value is not None}


class RequestStore:
    """Everything that this Jobnet has asked, and the meetings that it knows of."""

    def __init__(self, asker: RequestSender) -> None:
        self._asker = asker
        self._asked: OrderedDict[str, SentRequest] = OrderedDict()
        self._meetings: dict[str, OrderedDict[str, Meeting]] = defaultdict(OrderedDict)

    async def ask(
        self, citizen: Citizen, type_: str, request_id: str | None = None, **fields: Any
    ) -> SentRequest:
        """Send a request. A form carries its `request_id` with it, so that sending it twice has one effect."""
        asked = SentRequest(citizen, type_, fields, request_id or str(uuid4()), NOTHING_CAME)
        self._asked[asked.request_id] = asked
        if len(self._asked) > MOST_ASKED:
            self._asked.popitem(last=False)
        return await self.again(asked)

    async def again(self, asked: SentRequest) -> SentRequest:
        """Send the same request once more: its first answer comes back, or by now its last word."""
        asked.told = False  # what is told from now on may be newer than the answer
        asked.asked_at = time.monotonic()
        try:
            asked.answer = await self._asker.ask(asked.type, asked.body(datetime.now(UTC)))
        except NoAnswer:
            asked.answer = NOTHING_CAME
        self._learn(asked)
        return asked

    async def asked(self, citizen: Citizen, request_id: str) -> SentRequest:
        """A request of this citizen, with its last word if that has been told since or may have been missed.

        Raises Unknown.
        """
        asked = self._asked.get(request_id)
        if asked is None or asked.citizen != citizen:
            raise Unknown(request_id)
        due = asked.told or time.monotonic() - asked.asked_at > ASK_AGAIN_S
        return await self.again(asked) if asked.is_open and due else asked

    async def open_of(self, citizen: Citizen) -> list[SentRequest]:
        """What is still not known of this citizen's bookings, the newest first."""
        own = [a for a in self._asked.values() if a.citizen == citizen and a.type.startswith("booking.")]
        known = [await self.asked(citizen, a.request_id) for a in own if a.is_open]
        return [asked for asked in reversed(known) if asked.is_open]

    def heard(self, event: Event) -> None:
        """jobnet.outcomes told of a booking: if it is the last word on one of ours, the same request may go again."""
        asked = self._asked.get(str(event.get("requestId")))
        if asked is not None and event.get("outcome") != "uncertain":
            asked.told = True

    def meetings(self, citizen: Citizen) -> list[Meeting]:
        """The citizen's meetings, by start."""
        return sorted(self._meetings[citizen.key].values(), key=lambda meeting: meeting["starttidspunkt"])

    def meeting(self, citizen: Citizen, invitation: str) -> Meeting:
        """One of them. Raises Unknown."""
        try:
            return self._meetings[citizen.key][invitation]
        except KeyError:
            raise Unknown(invitation) from None

    def remember(self, citizen: Citizen, meeting: Meeting) -> None:
        """There is this meeting, as it stands now."""
        own = self._meetings[citizen.key]
        own[meeting["indkaldelseId"]] = meeting
        if len(own) > MOST_MEETINGS:
            own.popitem(last=False)

    def _learn(self, asked: SentRequest) -> None:
        result = asked.answer.get("result") or {}
        if "booking" in result:
            self.remember(asked.citizen, result["booking"])
        gone = result.get("aflyst") or asked.answer.get("reason") == "unknown-booking"
        if gone and asked.fields.get("indkaldelseId"):
            self._meetings[asked.citizen.key].pop(asked.fields["indkaldelseId"], None)
