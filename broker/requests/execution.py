"""What happens to one request between validation and the ledger's last word on it: claim, handle, settle.

Nothing is published here. An arrival of a request that this process is already handling joins it; one that another
process handles is waited for; one whose process died is looked up and never sent again (docs/architecture.md#claim).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
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
    RowRefused,
    Settled,
    StoredAnswer,
    TakenOver,
)
from broker.reports.enrichment import stored_answer_of
from broker.requests.disposition import Handled
from broker.requests.request_spans import handling
from broker.requests.routes import RoutedRequest
from broker.requests.verifier import DEAD_OWNERS_MOST, Verifier
from broker.settle import Settlement, done, expired, refused, settle
from broker.telemetry.log import get_logger
from config.settings import Settings
from schemas.answers import Result
from schemas.codes import Reason, Status

T = TypeVar("T")

log = get_logger("execution")

DEAD_OWNERS_SUSPECT = 2
"""A request whose owner died so often is handled alone, on the suspect queue."""
LOOK_PAUSES = (0.2, 0.4, 0.8, 1.6)
"""Seconds between look-ups of an unknown booking while its citizen waits; the last one repeats."""


@dataclass(frozen=True, slots=True)
class _InProgress:
    """A request that this process handles now; later arrivals of it wait for the same future."""

    business: bytes
    future: asyncio.Future[Handled]


class Execution:
    """Executes requests: claimed ones by the ledger, queries without it."""

    def __init__(self, settings: Settings, ledger: Ledger, systems: Systems, verifier: Verifier) -> None:
        self._settings = settings
        self._ledger = ledger
        self._systems = systems
        self._verifier = verifier
        self._too_old = settings.ledger.owner_dead_after_seconds / 2
        self._in_progress: dict[UUID, _InProgress] = {}  # bounded by the prefetch of the claimed queues

    async def run(self, request: RoutedRequest) -> Handled:
        """Execute one routed request. Raises only for a bug, and LedgerAway when the ledger closes first."""
        return await (self._join_or_claim(request) if request.route.claimed else self._query(request))

    async def announce_later(self, request_id: UUID) -> None:
        """Leave this request's outcome event due in the ledger; the scheduler announces it."""
        await self._retry_while_away(lambda: self._ledger.events.make_due(request_id))

    # -- queries -------------------------------------------------------------------------------------------------

    async def _query(self, request: RoutedRequest) -> Handled:
        """A query changes nothing, so it is not claimed, and a repeat asks the systems again."""
        settlement = await self._ask_systems(request)
        if settlement.answer.status is Status.FAILED:
            await self._record_failed_query(request, settlement)
        return Handled.answered(request, settlement)

    async def _ask_systems(self, request: RoutedRequest) -> Settlement:
        message, jobcenter = request.message, request.jobcenter
        now = datetime.now(UTC)
        if request.late:
            return expired(message, now)
        if request.refusal or jobcenter is None:
            return refused(message, request.refusal or Reason.UNKNOWN_JOBCENTER, now)
        try:
            clients = self._systems.clients(jobcenter.planner, jobcenter.booking_system)
            caller = Caller.of(message, traceparent=request.traceparent, answer_by=request.answer_by)
            result = await handling(request.route.handler)(message, caller, clients)
            return done(message, result, datetime.now(UTC))
        except Exception as error:
            return settle(message, error, datetime.now(UTC))

    async def _record_failed_query(self, request: RoutedRequest, settlement: Settlement) -> None:
        """A failed query leaves a row, because a citizen may report it. Its answer does not depend on that row."""
        claim_request = _claim_request(request, request.message.business_fields())
        try:
            await self._ledger.requests.record(claim_request, _stored_answer(request, settlement))
        except BrokerError as refusal:
            log.error("failed-query-not-recorded", request_id=request.message.request_id, reason=refusal)

    # -- bookings and citizen reports: claim, handle, settle -----------------------------------------------------

    async def _join_or_claim(self, request: RoutedRequest) -> Handled:
        """Join this process's execution of the same request, or execute it."""
        request_id, business = request.message.request_id, request.message.business_fields()
        running = self._in_progress.get(request_id)
        if running is not None:
            return (
                await asyncio.shield(running.future) if running.business == business else _conflict(request)
            )
        future: asyncio.Future[Handled] = asyncio.get_running_loop().create_future()
        self._in_progress[request_id] = _InProgress(business, future)
        try:
            handled = await self._until_settled(request, _claim_request(request, business))
            future.set_result(handled)
            return handled
        except Exception as bug:
            future.set_exception(bug)  # an arrival that joined has the same bug, and ends in the same way
            future.exception()  # without a joined arrival nothing else would read the exception
            raise
        finally:
            future.cancel()  # only the stop of the process leaves it open until here
            del self._in_progress[request_id]

    async def _until_settled(self, request: RoutedRequest, claim_request: ClaimRequest) -> Handled:
        """Claim, handle, settle; again from the start while another process or booking is in the way."""
        without_claim = _without_claim(request)
        while True:
            try:
                if without_claim is None:
                    outcome = await self._ledger.requests.claim(claim_request)
                else:
                    outcome = await self._ledger.requests.record(
                        claim_request, _stored_answer(request, without_claim)
                    )
            except RowRefused as refusal:
                return await self._not_begun(request, refusal)
            match outcome:
                case Settled():
                    recorded = (
                        without_claim is not None and outcome.ending.answer == without_claim.answer.to_json()
                    )
                    return Handled.stored(request, outcome, without_claim if recorded else None)
                case Claimed(claim=claim) | TakenOver(claim=claim):
                    # The one place where a claim ends: without a settle the next sweep finds an orphan.
                    with self._ledger.requests.until_end(claim):
                        handled = await self._carry_out(request, claim)
                    if handled is not None:  # None: another process took the claim over; ask what it settled
                        return handled
                case CitizenBusy():
                    reason = await self._await_turn(request, outcome)
                    without_claim = refused(request.message, reason, datetime.now(UTC)) if reason else None
                case ClaimedElsewhere():
                    await self._pause()
                case Conflict():
                    return _conflict(request)

    async def _not_begun(self, request: RoutedRequest, refusal: RowRefused) -> Handled:
        """The ledger refused the row itself. Without an earlier row nothing was ever sent: failed, not uncertain."""
        request_id = request.message.request_id
        if await self._retry_while_away(lambda: self._ledger.lookups.is_known(request_id)):
            raise refusal
        return Handled.answered(request, settle(request.message, refusal, datetime.now(UTC)))

    async def _carry_out(self, request: RoutedRequest, claim: Claim) -> Handled | None:
        """Handle and settle a claim of this process, or leave it to the suspect queue. None: it was overtaken."""
        if claim.taken_over and claim.dead_owners == DEAD_OWNERS_SUSPECT and not request.suspect:
            await self._retry_while_away(lambda: self._ledger.requests.release(claim))
            return Handled.quarantined()
        settlement = await self._call_out(request, claim)
        settled = await self._ledger.requests.settle(claim, _stored_answer(request, settlement))
        return Handled.stored(request, settled, settlement) if settled is not None else None

    async def _call_out(self, request: RoutedRequest, claim: Claim) -> Settlement:
        """Handle a claim of this process. A new claim may expire; one taken over is only looked up."""
        message = request.message
        await self._wait_for_heartbeat(request)
        if request.late and not claim.taken_over:
            return expired(message, datetime.now(UTC))
        if request.route.lookup is None:  # it calls no external system, so repeating it is harmless
            result = await handling(request.route.handler)(message, None, None)
            return done(message, result, datetime.now(UTC))
        if claim.dead_owners >= DEAD_OWNERS_MOST:
            call_facts = CallFacts(claim.booking_system, "claim", "crash")
            return settle(message, Unknown(call_facts, last_sent_at=claim.deadline_at), datetime.now(UTC))
        caller = Caller.of(
            message,
            traceparent=request.traceparent,
            answer_by=request.answer_by,
            may_commit=self._permit(claim, request.answer_by),
        )
        try:
            clients = self._systems.clients(claim.planner, claim.booking_system)
        except Misconfigured as gone:  # the directory lost the system at a restart
            lost = Unknown(gone.call_facts, last_sent_at=claim.deadline_at) if claim.taken_over else gone
            return settle(message, lost, datetime.now(UTC))
        try:
            if claim.taken_over:
                call_facts = CallFacts(claim.booking_system, "claim", "owner-died")
                raise Unknown(call_facts, last_sent_at=claim.deadline_at)
            result = await handling(request.route.handler)(message, caller, clients)
            return done(message, result, datetime.now(UTC))
        except Unknown as unknown:
            found = await look_until(request, caller, clients)
            now = datetime.now(UTC)
            return done(message, found, now) if found else settle(message, unknown, now)
        except Exception as error:
            return settle(message, error, datetime.now(UTC))

    async def _await_turn(self, request: RoutedRequest, busy: CitizenBusy) -> Reason | None:
        """Wait a little for the citizen's other booking (R9). A reason is returned when no time is left to wait."""
        if busy.uncertain:
            by = request.answer_by
            known = await self._retry_while_away(
                lambda: self._verifier.verify_now(busy.request_id, answer_by=by)
            )
            if known is not None:
                return None if known else Reason.EARLIER_BOOKING_UNCERTAIN
        if monotonic() + self._settings.http.total_timeout_seconds >= request.answer_by:
            # The time left would not carry a create.
            return Reason.EARLIER_BOOKING_UNCERTAIN if busy.uncertain else Reason.BUSY
        await self._pause()
        return None

    async def _retry_while_away(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call that raises LedgerAway at once; claims and settles wait by themselves.

        Claims wait past the deadline too: `expired` is told only once it is recorded.
        """
        while True:
            try:
                return await call()
            except LedgerAway:
                await self._ledger.availability.wait_until_back()
                await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(self._settings.requests.poll_ms / 1000)

    async def _wait_for_heartbeat(self, request: RoutedRequest) -> None:
        """After an outage of PostgreSQL a claim may be committed before the next heartbeat: wait for that heartbeat."""
        while self._ledger.heartbeat.age_s >= self._too_old and not request.late:
            await self._pause()

    def _permit(self, claim: Claim, answer_by: float) -> Callable[[float], None]:
        """The check right before a create, accept or cancel leaves: time for the call, and a living claim.

        A process that was frozen finds its heartbeat too old here and sends nothing: another may have taken over.
        """

        def may_commit(timeout: float) -> None:
            if monotonic() + timeout > answer_by:
                raise NotSent(CallFacts(claim.booking_system, "commit", "no-time-left"))
            if self._ledger.heartbeat.age_s >= self._too_old:
                raise NotSent(CallFacts(claim.booking_system, "commit", "heartbeat-too-old"))

        return may_commit


def _without_claim(request: RoutedRequest) -> Settlement | None:
    """How a request ends that is not claimed at all: too late, or refused by a rule."""
    now = datetime.now(UTC)
    if request.late:
        return expired(request.message, now)
    return refused(request.message, request.refusal, now) if request.refusal else None


def _conflict(request: RoutedRequest) -> Handled:
    """The same requestId came before with other business fields (R8)."""
    return Handled.answered(request, refused(request.message, Reason.CONFLICT, datetime.now(UTC)))


def _stored_answer(request: RoutedRequest, settlement: Settlement) -> StoredAnswer:
    return stored_answer_of(request.message, settlement, request.addressee, traceparent=request.traceparent)


def _claim_request(request: RoutedRequest, business: bytes) -> ClaimRequest:
    message, jobcenter = request.message, request.jobcenter
    return ClaimRequest(
        request_id=message.request_id,
        type=message.TYPE,
        business=business,
        cpr=message.cpr,
        jobcenter_code=message.jobcenter_code,
        planner=jobcenter.planner if jobcenter else "",
        booking_system=jobcenter.booking_system if jobcenter else "",
        supplier=jobcenter.supplier if jobcenter else "",
        deadline_at=request.deadline_at,
        message=message.to_json(),
        traceparent=request.traceparent,
        turn=request.route.turn,
    )


async def look_until(request: RoutedRequest, caller: Caller, clients: Clients) -> Result | None:
    """Look up an unknown booking until it is found or the citizen's time is over."""
    assert request.route.lookup is not None  # noqa: S101  only claimed routes come here, and those have one
    for pause in _pauses():
        try:
            found = await request.route.lookup(request.message, caller, clients)
        except BrokerError:
            found = None  # no answer from the system proves nothing either way
        if found is not None or monotonic() + pause >= request.answer_by:
            return found
        await asyncio.sleep(pause)
    return None


def _pauses() -> Iterator[float]:
    yield from LOOK_PAUSES
    while True:
        yield LOOK_PAUSES[-1]
