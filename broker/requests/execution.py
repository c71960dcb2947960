"""What happens to one booking between its arrival and the ledger's last word on it: claim, handle, settle.

Nothing is published here. An arrival of a request that this process is already carrying joins it; one that another
process carries is waited for; one whose process died is looked up and never sent again (DESIGN 5, "Claim").
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from time import monotonic
from typing import TypeVar
from uuid import UUID

from broker.clients import Clients, Systems
from broker.clients.http import Caller
from broker.errors import BrokerError, CallFacts, LedgerAway, Misconfigured, NotSent, Unknown
from broker.ledger.ledger import Ledger
from broker.ledger.model import (
    CitizenBusy,
    Claim,
    Claimed,
    ClaimedElsewhere,
    ClaimRequest,
    Conflict,
    Settled,
    StoredAnswer,
    TakenOver,
)
from broker.reports.enrichment import Addressee, ending_of
from broker.requests.request_spans import handling
from broker.requests.routes import Route
from broker.requests.verifier import DEAD_OWNERS_MOST, Verifier
from broker.settle import Settlement, done, expired, refused, settle
from config.directory import Jobcenter
from config.settings import Settings
from schemas.answers import Result
from schemas.codes import Reason
from schemas.envelope import Request

T = TypeVar("T")

DEAD_OWNERS_SUSPECT = 2
"""A request whose owner died so often is handled alone, on the suspect queue (DESIGN 8)."""
LOOK_PAUSES = (0.2, 0.4, 0.8, 1.6)
"""Seconds between look-ups of an unknown booking while its citizen waits; the last one repeats."""


@dataclass(frozen=True, slots=True)
class RoutedRequest:
    """One valid request, where it goes, and how long its citizen waits (`answer_by` is monotonic).

    `suspect`: it came on the suspect queue, where it is handled alone.
    """

    message: Request
    route: Route
    jobcenter: Jobcenter | None
    addressee: Addressee
    traceparent: str | None
    deadline_at: datetime
    answer_by: float
    refusal: Reason | None
    suspect: bool = False

    @property
    def late(self) -> bool:
        """Whether an answer would come after the citizen stopped waiting; a citizen's report never does."""
        return self.message.EXPIRES and monotonic() >= self.answer_by


@dataclass(frozen=True, slots=True)
class Concluded:
    """What the ledger holds in the end, and how it came to that if it was this process and this arrival."""

    stored: Settled
    settlement: Settlement | None = None


class Unconcluded(Enum):
    """Why the ledger has nothing to tell for this arrival."""

    CONFLICT = "the same requestId came before with other business fields (rule 8)"
    SUSPECT = "two processes died at it: it is to be handled alone"


@dataclass(frozen=True, slots=True)
class _Underway:
    business: bytes
    future: asyncio.Future[Concluded | Unconcluded]


class Execution:
    """Carries claimed requests; queries never come here."""

    def __init__(self, settings: Settings, ledger: Ledger, systems: Systems, verifier: Verifier) -> None:
        self._settings = settings
        self._ledger = ledger
        self._systems = systems
        self._verifier = verifier
        self._too_old = settings.ledger.owner_dead_after_seconds / 2
        self._underway: dict[UUID, _Underway] = {}  # bounded by the prefetch of the bookings queue

    async def conclude(self, errand: RoutedRequest) -> Concluded | Unconcluded:
        """Come back with what the ledger holds of this request, or with why there is nothing to tell."""
        business = errand.message.business_fields()
        twin = self._underway.get(errand.message.request_id)
        if twin is not None:
            return await asyncio.shield(twin.future) if twin.business == business else Unconcluded.CONFLICT
        future: asyncio.Future[Concluded | Unconcluded] = asyncio.get_running_loop().create_future()
        self._underway[errand.message.request_id] = _Underway(business, future)
        try:
            concluded = await self._until_settled(errand, self._ask(errand, business))
            future.set_result(concluded)
            return concluded
        except Exception as bug:
            future.set_exception(bug)  # whoever joined has the same bug, and puts it aside in the same way
            future.exception()  # and nobody need have joined
            raise
        finally:
            future.cancel()  # only the process's stop leaves it open until here
            del self._underway[errand.message.request_id]

    async def _until_settled(self, errand: RoutedRequest, ask: ClaimRequest) -> Concluded | Unconcluded:
        instead = self._before_any_claim(errand)
        while True:
            if instead is None:
                outcome = await self._ledger.requests.claim(ask)
            else:
                outcome = await self._ledger.requests.record(ask, self._ending(errand, instead))
            match outcome:
                case Settled():
                    ours = instead is not None and outcome.ending.answer == instead.answer.to_json()
                    return Concluded(outcome, instead if ours else None)
                case TakenOver(claim=claim) if (
                    claim.dead_owners == DEAD_OWNERS_SUSPECT and not errand.suspect
                ):
                    await self._patiently(lambda: self._ledger.requests.release(claim))
                    return Unconcluded.SUSPECT
                case Claimed(claim=claim) | TakenOver(claim=claim):
                    settlement = await self._carry_out(errand, claim)
                    stored = await self._ledger.requests.settle(claim, self._ending(errand, settlement))
                    if stored is not None:
                        return Concluded(stored, settlement)
                case CitizenBusy():
                    reason = await self._await_turn(errand, outcome)
                    instead = refused(errand.message, reason, datetime.now(UTC)) if reason else None
                case ClaimedElsewhere():
                    await self._pause()
                case Conflict():
                    return Unconcluded.CONFLICT

    def _before_any_claim(self, errand: RoutedRequest) -> Settlement | None:
        now = datetime.now(UTC)
        if errand.late:
            return expired(errand.message, now)
        return refused(errand.message, errand.refusal, now) if errand.refusal else None

    async def _carry_out(self, errand: RoutedRequest, claim: Claim) -> Settlement:
        """Handle a claim of our own. Only a new one may expire; one taken over is looked up (DESIGN 5)."""
        message = errand.message
        await self._heartbeat_of_ours(errand)
        if errand.late and not claim.taken_over:
            return expired(message, datetime.now(UTC))
        if errand.route.lookup is None:  # nothing leaves the house, so a second time is as good as the first
            result = await handling(errand.route.handler)(message, None, None)
            return done(message, result, datetime.now(UTC))
        if claim.dead_owners >= DEAD_OWNERS_MOST:
            call_facts = CallFacts(claim.booking_system, "claim", "crash")
            return settle(message, Unknown(call_facts, last_sent_at=claim.deadline_at), datetime.now(UTC))
        caller = Caller.of(
            message,
            traceparent=errand.traceparent,
            answer_by=errand.answer_by,
            may_commit=self._permit(claim, errand.answer_by),
        )
        try:
            clients = self._systems.clients(claim.planner, claim.booking_system)
        except Misconfigured as gone:  # the directory forgot it over a restart
            lost = Unknown(gone.call_facts, last_sent_at=claim.deadline_at) if claim.taken_over else gone
            return settle(message, lost, datetime.now(UTC))
        try:
            if claim.taken_over:
                call_facts = CallFacts(claim.booking_system, "claim", "owner-died")
                raise Unknown(call_facts, last_sent_at=claim.deadline_at)
            result = await handling(errand.route.handler)(message, caller, clients)
            return done(message, result, datetime.now(UTC))
        except Unknown as unknown:
            found = await look_until(errand, caller, clients)
            now = datetime.now(UTC)
            return done(message, found, now) if found else settle(message, unknown, now)
        except Exception as error:
            return settle(message, error, datetime.now(UTC))

    async def _await_turn(self, errand: RoutedRequest, busy: CitizenBusy) -> Reason | None:
        """Wait a little for the citizen's other booking; a reason means that the patience is used up (rule 9)."""
        if busy.uncertain:
            by = errand.answer_by
            known = await self._patiently(lambda: self._verifier.verify_now(busy.request_id, answer_by=by))
            if known is not None:
                return None if known else Reason.EARLIER_BOOKING_UNCERTAIN
        if monotonic() + self._settings.http.total_timeout_seconds >= errand.answer_by:
            # What is left would not carry a create.
            return Reason.EARLIER_BOOKING_UNCERTAIN if busy.uncertain else Reason.BUSY
        await self._pause()
        return None

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Calls that are not gathered raise LedgerAway at once; here they wait like claims and settles do."""
        while True:
            try:
                return await ask()
            except LedgerAway:
                await self._ledger.availability.wait_until_back()
                await self._pause()

    async def tell_later(self, request_id: UUID) -> None:
        """RabbitMQ did not take the outcome event of this request: it stays due in the ledger."""
        await self._patiently(lambda: self._ledger.events.make_due(request_id))

    async def _pause(self) -> None:
        await asyncio.sleep(self._settings.requests.poll_ms / 1000)

    async def remember(self, errand: RoutedRequest, settlement: Settlement) -> None:
        """A failed query leaves a row, because a citizen may report it (DESIGN 5)."""
        ask = self._ask(errand, errand.message.business_fields())
        await self._ledger.requests.record(ask, self._ending(errand, settlement))

    @staticmethod
    def _ending(errand: RoutedRequest, settlement: Settlement) -> StoredAnswer:
        return ending_of(errand.message, settlement, errand.addressee, traceparent=errand.traceparent)

    def _ask(self, errand: RoutedRequest, business: bytes) -> ClaimRequest:
        message, jobcenter = errand.message, errand.jobcenter
        return ClaimRequest(
            request_id=message.request_id,
            type=message.TYPE,
            business=business,
            cpr=message.cpr,
            jobcenter_code=message.jobcenter_code,
            planner=jobcenter.planner if jobcenter else "",
            booking_system=jobcenter.booking_system if jobcenter else "",
            supplier=jobcenter.supplier if jobcenter else "",
            deadline_at=errand.deadline_at,
            message=message.to_json(),
            traceparent=errand.traceparent,
            turn=errand.route.turn,
        )

    async def _heartbeat_of_ours(self, errand: RoutedRequest) -> None:
        """After an outage of PostgreSQL claims may come through before the heartbeat does: a moment, not a failure."""
        while self._ledger.heartbeat.age_s >= self._too_old and not errand.late:
            await self._pause()

    def _permit(self, claim: Claim, answer_by: float) -> Callable[[float], None]:
        """The check right before a create, accept or cancel leaves: time for the call, and a living claim.

        A process that was frozen finds its heartbeat too old here, and sends nothing: another may have taken over.
        """

        def may_commit(timeout: float) -> None:
            if monotonic() + timeout > answer_by:
                raise NotSent(CallFacts(claim.booking_system, "commit", "no-time-left"))
            if self._ledger.heartbeat.age_s >= self._too_old:
                raise NotSent(CallFacts(claim.booking_system, "commit", "heartbeat-too-old"))

        return may_commit


async def look_until(errand: RoutedRequest, caller: Caller, clients: Clients) -> Result | None:
    """Look an unknown booking up again and again until it shows or its citizen's patience is over."""
    assert errand.route.lookup is not None  # noqa: S101  only claimed routes come here, and those have one
    for pause in _pauses():
        try:
            found = await errand.route.lookup(errand.message, caller, clients)
        except BrokerError:
            found = None  # the system does not answer; that proves nothing either way
        if found is not None or monotonic() + pause >= errand.answer_by:
            return found
        await asyncio.sleep(pause)
    return None


def _pauses() -> Iterator[float]:
    yield from LOOK_PAUSES
    while True:
        yield LOOK_PAUSES[-1]
