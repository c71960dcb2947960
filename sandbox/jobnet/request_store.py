"""Jobnet's memory: the requests that it sent for its citizens, their answers, and the citizens' meetings.

In memory and bounded; the oldest entries are dropped first. It shows the rules for every frontend: a request keeps its
requestId when it is sent again, and an `uncertain` answer is not the final outcome.
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

MAX_REQUESTS = 2_000
MAX_MEETINGS = 50
DEADLINE = timedelta(seconds=9)
# An event can be missed while the connection is down. The broker answers a repeat from its ledger.
RESEND_AFTER_S = 15.0
REPORT = "report.citizen.v1"
WITHOUT_GROUP = ("booking.accept.v1", "booking.cancel.v1", REPORT)
OPEN_STATUSES = ("uncertain", "no-answer")
NO_ANSWER_YET = {"status": "no-answer", "text": NO_ANSWER}

Meeting = Mapping[str, Any]


class RequestSender(Protocol):
    """Sends a request to the broker and returns its answer: BrokerClient, or a stand-in in tests."""

    async def ask(self, type_: str, body: Mapping[str, Any]) -> dict[str, Any]: ...


class Unknown(LookupError):
    """There is no citizen, request, meeting, system or switch of that name."""


@dataclass
class SentRequest:
    """One request and its answer so far.

    `has_final_event`: an event has announced the final outcome; sending the request again returns it. `sent_at` is
    the time of the last sending on the monotonic clock.
    """

    citizen: Citizen
    type: str
    fields: dict[str, Any]
    request_id: str
    answer: Mapping[str, Any]
    has_final_event: bool = False
    sent_at: float = 0.0

    @property
    def status(self) -> str:
        """The status of its answer, or `no-answer`."""
        return str(self.answer["status"])

    @property
    def is_open(self) -> bool:
        """Whether its final outcome is not known yet."""
        return self.status in OPEN_STATUSES

    @property
    def is_query(self) -> bool:
        """Whether it only reads."""
        return self.type.startswith("query.")

    @property
    def is_immediate(self) -> bool:
        """Whether it is about straksbooking."""
        return self.type == "booking.immediate.v1" or bool(self.fields.get("straksbooking"))

    def body(self, now: datetime) -> dict[str, Any]:
        """The body of the message. A repeat has a new sentAt and deadline; everything else is the same."""
        common: dict[str, Any] = {
            "requestId": self.request_id,
            "sentAt": now.isoformat(),
            "cpr": self.citizen.cpr,
            "jobcenterkode": self.citizen.jobcenter,
        }
        if self.type != REPORT:  # a report has no deadline
            common["deadline"] = (now + DEADLINE).isoformat()
        if self.type not in WITHOUT_GROUP and self.citizen.group is not None:
            common["kontaktgruppe"] = self.citizen.group
        return common | {name: value for name, value in self.fields.items() if value is not None}


class RequestStore:
    """The requests that this Jobnet has sent, and the meetings that it knows."""

    def __init__(self, sender: RequestSender) -> None:
        self._sender = sender
        self._requests: OrderedDict[str, SentRequest] = OrderedDict()
        self._meetings: dict[str, OrderedDict[str, Meeting]] = defaultdict(OrderedDict)

    async def send(
        self, citizen: Citizen, type_: str, request_id: str | None = None, **fields: Any
    ) -> SentRequest:
        """Send a request. A form contains its `request_id`, so that submitting it twice has one effect."""
        sent = SentRequest(citizen, type_, fields, request_id or str(uuid4()), NO_ANSWER_YET)
        self._requests[sent.request_id] = sent
        if len(self._requests) > MAX_REQUESTS:
            self._requests.popitem(last=False)
        return await self.resend(sent)

    async def resend(self, sent: SentRequest) -> SentRequest:
        """Send the same request again. The broker returns its first answer or, if known by now, its final outcome."""
        # An event that comes from now on may be newer than the answer.
        sent.has_final_event = False
        sent.sent_at = time.monotonic()
        try:
            sent.answer = await self._sender.ask(sent.type, sent.body(datetime.now(UTC)))
        except NoAnswer:
            sent.answer = NO_ANSWER_YET
        self._apply_answer(sent)
        return sent

    async def find(self, citizen: Citizen, request_id: str) -> SentRequest:
        """A request of this citizen. An open one is sent again if its final event came or may have been missed.

        Raises Unknown.
        """
        sent = self._requests.get(request_id)
        if sent is None or sent.citizen != citizen:
            raise Unknown(request_id)
        due = sent.has_final_event or time.monotonic() - sent.sent_at > RESEND_AFTER_S
        return await self.resend(sent) if sent.is_open and due else sent

    async def open_requests(self, citizen: Citizen) -> list[SentRequest]:
        """The citizen's bookings without a final outcome, the newest first."""
        own = [
            request
            for request in self._requests.values()
            if request.citizen == citizen and request.type.startswith("booking.")
        ]
        current = [await self.find(citizen, request.request_id) for request in own if request.is_open]
        return [sent for sent in reversed(current) if sent.is_open]

    def note_event(self, event: Event) -> None:
        """Note an event of jobnet.outcomes: if it is the final outcome of a request, the request may be sent again."""
        sent = self._requests.get(str(event.get("requestId")))
        if sent is not None and event.get("outcome") != "uncertain":
            sent.has_final_event = True

    def meetings(self, citizen: Citizen) -> list[Meeting]:
        """The citizen's meetings, by start."""
        return sorted(self._meetings[citizen.key].values(), key=lambda meeting: meeting["starttidspunkt"])

    def meeting(self, citizen: Citizen, invitation: str) -> Meeting:
        """A meeting of the citizen. Raises Unknown."""
        try:
            return self._meetings[citizen.key][invitation]
        except KeyError:
            raise Unknown(invitation) from None

    def remember_meeting(self, citizen: Citizen, meeting: Meeting) -> None:
        """Add the meeting, or replace its earlier state."""
        meetings = self._meetings[citizen.key]
        meetings[meeting["indkaldelseId"]] = meeting
        if len(meetings) > MAX_MEETINGS:
            meetings.popitem(last=False)

    def _apply_answer(self, sent: SentRequest) -> None:
        result = sent.answer.get("result") or {}
        if "booking" in result:
            self.remember_meeting(sent.citizen, result["booking"])
        gone = result.get("aflyst") or sent.answer.get("reason") == "unknown-booking"
        if gone and sent.fields.get("indkaldelseId"):
            self._meetings[sent.citizen.key].pop(sent.fields["indkaldelseId"], None)
