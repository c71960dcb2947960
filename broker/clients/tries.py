"""One call's way through its tries: which x-requestId, when again, and what it all comes to (DESIGN 4 and 5).

Knows nothing of sockets: a try is a function that is handed in. Retries end with the caller's time; nothing
is carried out afterwards.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Generic

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from broker.clients.breaker import Admission, CallHealth
from broker.clients.bulkhead import Bulkhead, CallRejected
from broker.clients.calls import Call, Caller, CallKind, M, Reply
from broker.clients.classify import TIMEOUTS, CallClass, CallResult, Classified, classify, error_of
from broker.errors import AtCapacity, CallFacts, NotSent, Unavailable, Unknown
from broker.telemetry.counters import COUNTERS
from config.sections import HttpLimits

# (x-requestId, seconds that the try may take) -> what it met
Send = Callable[[str, float], Awaitable[CallResult]]

# A retry that has less time than this is not begun: it would only hide what went wrong before.
SHORTEST_RETRY_SECONDS = 0.05


class CallTries(Generic[M]):
    """The tries of one call. Use once."""

    def __init__(
        self, system: str, call: Call[M], caller: Caller, *, gate: Bulkhead, limits: HttpLimits, send: Send
    ) -> None:
        self._system = system
        self._call = call
        self._caller = caller
        self._gate = gate
        self._limits = limits
        self._send = send
        self._try_key = 1
        self._lost_one = False  # the current x-requestId was sent, and nobody answered
        self._milliseconds = 0
        self._before: Unavailable | None = None
        self._first: Unavailable | None = None
        self._bug: Exception | None = None

    async def carry(self) -> Reply[M]:
        """The answer of the contract. Raises what `HttpSystem.call` says."""
        try:
            return await self._one()
        except Unavailable as error:
            return await self._carry_on(error)

    async def _carry_on(self, first: Unavailable) -> Reply[M]:
        """The tries after the first one. Most calls need none, and tenacity costs as much as half a call."""
        self._before = self._first = first
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable), wait=self._pause, stop=self._too_late, reraise=True
        )
        try:
            return await retrying(self._again)
        except (AtCapacity, NotSent):
            # We stopped only because they failed before: theirs is the news.
            raise self._before from None

    async def _again(self) -> Reply[M]:
        first, self._first = self._first, None
        if first is not None:
            raise first  # tenacity counts from the failure that brought it here
        COUNTERS.retries[(self._system, self._call.step)] += 1
        try:
            return await self._one()
        except Unavailable as error:
            self._before = error
            raise

    async def _one(self) -> Reply[M]:
        judgement = await self._try()
        if judgement.leaves_unknown(self._call.kind):
            raise await self._unknown(judgement) from self._bug
        self._next_key(judgement)
        error = error_of(judgement, self._seen(judgement))
        if error is not None:
            raise error
        return Reply(judgement.body, judgement.status or 0)

    async def _try(self) -> Classified[M]:
        """One try through the gate. Raises AtCapacity, NotSent or Unavailable if it did not leave."""
        place = await self._enter()
        learnt = CallHealth.NEITHER
        try:
            seconds = self._may_leave()
            judgement = await self._judged(seconds)
            COUNTERS.called(self._system, self._call.step, judgement.verdict.name, self._milliseconds / 1000)
            if not self._hurried(judgement, seconds) and self._bug is None:
                learnt = judgement.for_breaker()
            if judgement.retry_after is not None:
                self._gate.hold(judgement.retry_after)
            return judgement
        finally:
            self._gate.leave(place, learnt)

    async def _judged(self, seconds: float) -> Classified[M]:
        began = time.monotonic()
        try:
            met = await self._send(self._caller.x_request_id(self._call, self._try_key), seconds)
            return classify(self._call, met, after_unanswered=self._lost_one)
        except Exception as bug:
            if self._call.kind is not CallKind.COMMIT:
                raise
            # It may have left: a bug of ours must not tell a citizen "failed" for a meeting that exists.
            self._bug = bug
            return Classified(CallClass.BROKEN, "bug")
        finally:
            self._milliseconds = round((time.monotonic() - began) * 1000)

    def _hurried(self, judgement: Classified[M], seconds: float) -> bool:
        """A try that our caller's time cut short says little about the system."""
        return judgement.what in TIMEOUTS and seconds < self._limits.total_timeout_seconds / 2

    async def _enter(self) -> Admission:
        try:
            return await self._gate.enter(self._caller.answer_by)
        except CallRejected as refusal:
            COUNTERS.turned_away[(self._system, refusal.what)] += 1
            call_facts = CallFacts(self._system, self._call.step, refusal.what)
            if refusal.retry_after is not None:
                raise Unavailable(call_facts, refusal.retry_after) from None
            raise AtCapacity(call_facts) from None

    def _may_leave(self) -> float:
        """How long the try may take.

        Asked with the place in hand, so that nothing lies between the check and the call.
        """
        if self._call.kind is CallKind.COMMIT:
            self._caller.may_commit(self._limits.total_timeout_seconds)
        seconds = min(self._limits.total_timeout_seconds, self._caller.answer_by - time.monotonic())
        if seconds <= 0:
            raise NotSent(CallFacts(self._system, self._call.step, "no-time-left"))
        return seconds

    def _next_key(self, judgement: Classified[M]) -> None:
        """The same x-requestId only while a try under it is unanswered and none since had an answer."""
        if judgement.unanswered:
            self._lost_one = True
        elif judgement.sent or not self._lost_one:
            self._lost_one = False
            self._try_key += 1

    async def _unknown(self, judgement: Classified[M]) -> Unknown:
        """Stays Unknown whatever comes.

        An unanswered call is sent once more: it may not have arrived at all.
        """
        call_facts, last_sent_at = self._seen(judgement), datetime.now(UTC)
        if judgement.unanswered and await self._sent_again():
            last_sent_at = datetime.now(UTC)
        return Unknown(call_facts, last_sent_at)

    async def _sent_again(self) -> bool:
        pause = self._growing(1)
        if time.monotonic() + pause >= self._caller.answer_by:
            return False
        await asyncio.sleep(pause)
        self._lost_one = True
        COUNTERS.retries[(self._system, self._call.step)] += 1
        try:
            return (await self._try()).sent
        except (AtCapacity, NotSent, Unavailable):
            return False

    def _seen(self, judgement: Classified[M]) -> CallFacts:
        return CallFacts(
            self._system,
            self._call.step,
            judgement.what,
            status=judgement.status,
            fault=judgement.fault,
            milliseconds=self._milliseconds,
        )

    def _pause(self, state: RetryCallState) -> float:
        wished = self._before.retry_after if self._before else None
        if wished is None:
            return self._growing(state.attempt_number)
        return wished + _jitter(self._limits.retry_first_ms / 1000)

    def _growing(self, number: int) -> float:
        pause: float = min(self._limits.retry_first_ms * 2 ** min(number - 1, 30), self._limits.retry_max_ms)
        pause /= 1000
        return pause + _jitter(pause / 2)

    def _too_late(self, state: RetryCallState) -> bool:
        """A create, accept or cancel needs its whole timeout (DESIGN 5, Claim), anything else some time."""
        commits = self._call.kind is CallKind.COMMIT
        needs = self._limits.total_timeout_seconds if commits else SHORTEST_RETRY_SECONDS
        return time.monotonic() + state.upcoming_sleep + needs >= self._caller.answer_by


def _jitter(upwards: float) -> float:
    return random.uniform(0, upwards)  # noqa: S311 - spreads retries, guards nothing
