"""The tries of one call: their x-requestIds, the retries and their pauses, and the final result.

See docs/architecture.md#retries and docs/contract.md#request-ids. It knows nothing of sockets: a try is a function that
is passed in. Retries end with the caller's time; nothing is repeated later.
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
from broker.retries import retry_from
from broker.telemetry.counters import COUNTERS
from broker.telemetry.log import get_logger
from config.sections import HttpLimits

log = get_logger("clients")

# (x-requestId, seconds that the try may take) -> its result
Send = Callable[[str, float], Awaitable[CallResult]]

# A retry with less time than this is not made: its timeout would hide the error of the try before.
SHORTEST_RETRY_SECONDS = 0.05
# Unreadable parts of one answer that its log line names.
MOST_NAMED = 5


class CallTries(Generic[M]):
    """The tries of one call. Use once."""

    def __init__(
        self,
        system: str,
        call: Call[M],
        caller: Caller,
        *,
        bulkhead: Bulkhead,
        limits: HttpLimits,
        send: Send,
    ) -> None:
        self._system = system
        self._call = call
        self._caller = caller
        self._bulkhead = bulkhead
        self._limits = limits
        self._send = send
        self._try_key = 1
        self._unanswered = False  # a try with the current x-requestId was sent and got no answer
        self._milliseconds = 0
        self._last_failure: Unavailable | None = None
        self._bug: Exception | None = None

    async def run(self) -> Reply[M]:
        """Make the tries and return the answer. Raises what `HttpSystem.call` raises."""
        try:
            return await self._try()
        except Unavailable as error:
            # Most calls end with the first try, and tenacity costs as much as half a call.
            return await self._retry(error)

    async def _retry(self, first: Unavailable) -> Reply[M]:
        self._last_failure = first
        policy = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable), wait=self._pause, stop=self._too_late, reraise=True
        )
        try:
            return await retry_from(first, self._try_again, policy)
        except (AtCapacity, NotSent):
            # This retry was not sent: the failure of the try before says more.
            raise self._last_failure from None

    async def _try_again(self) -> Reply[M]:
        COUNTERS.retries[(self._system, self._call.step)] += 1
        try:
            return await self._try()
        except Unavailable as error:
            self._last_failure = error
            raise

    async def _try(self) -> Reply[M]:
        classified = await self._send_once()
        if classified.leaves_unknown(self._call.kind):
            raise await self._unknown(classified) from self._bug
        self._choose_next_id(classified)
        error = error_of(classified, self._facts(classified))
        if error is not None:
            raise error
        return Reply(classified.body, classified.status or 0)

    async def _send_once(self) -> Classified[M]:
        """One try through the bulkhead. Raises AtCapacity, NotSent or Unavailable if it was not sent."""
        admission = await self._acquire()
        health = CallHealth.NEITHER
        try:
            # After the wait for a slot, so that no time passes between this check and the call.
            seconds = self._allowed_seconds()
            classified = await self._send_and_classify(seconds)
            COUNTERS.called(
                self._system, self._call.step, classified.call_class.name, self._milliseconds / 1000
            )
            if not self._cut_short(classified, seconds) and self._bug is None:
                health = classified.health
            if classified.left_out:
                log.warning(
                    "answer-part-left-out",
                    system=self._system,
                    step=self._call.step,
                    count=len(classified.left_out),
                    fields=" ".join(classified.left_out[:MOST_NAMED]),
                )
            if classified.retry_after is not None:
                self._bulkhead.pause(classified.retry_after)
            return classified
        finally:
            self._bulkhead.release(admission, health)

    async def _send_and_classify(self, seconds: float) -> Classified[M]:
        began = time.monotonic()
        try:
            result = await self._send(self._caller.x_request_id(self._call, self._try_key), seconds)
            return classify(self._call, result, after_unanswered=self._unanswered)
        except Exception as bug:
            if self._call.kind is not CallKind.COMMIT:
                raise
            # It may have been sent: this bug must not become the answer "failed" for a booking that exists.
            self._bug = bug
            return Classified(CallClass.BROKEN, "bug")
        finally:
            self._milliseconds = round((time.monotonic() - began) * 1000)

    def _cut_short(self, classified: Classified[M], seconds: float) -> bool:
        """Whether the caller's time ended the try early, so that its timeout says little about the system."""
        return classified.what in TIMEOUTS and seconds < self._limits.total_timeout_seconds / 2

    async def _acquire(self) -> Admission:
        try:
            return await self._bulkhead.acquire(self._caller.answer_by)
        except CallRejected as rejected:
            COUNTERS.turned_away[(self._system, rejected.what)] += 1
            call_facts = CallFacts(self._system, self._call.step, rejected.what)
            if rejected.retry_after is not None:
                raise Unavailable(call_facts, rejected.retry_after) from None
            raise AtCapacity(call_facts) from None

    def _allowed_seconds(self) -> float:
        """How long the try may take. Raises NotSent if it must not be sent now."""
        if self._call.kind is CallKind.COMMIT:
            self._caller.may_commit(self._limits.total_timeout_seconds)
        seconds = min(self._limits.total_timeout_seconds, self._caller.answer_by - time.monotonic())
        if seconds <= 0:
            raise NotSent(CallFacts(self._system, self._call.step, "no-time-left"))
        return seconds

    def _choose_next_id(self, classified: Classified[M]) -> None:
        """Keep the x-requestId after a try without an answer, until a later try gets an answer; else a new one."""
        if classified.unanswered:
            self._unanswered = True
        elif classified.sent or not self._unanswered:
            self._unanswered = False
            self._try_key += 1

    async def _unknown(self, classified: Classified[M]) -> Unknown:
        """The error Unknown, after one more send if the try got no answer: it may not have arrived."""
        # The answer to the second send does not change the result.
        call_facts, last_sent_at = self._facts(classified), datetime.now(UTC)
        if classified.unanswered and await self._resend():
            last_sent_at = datetime.now(UTC)
        return Unknown(call_facts, last_sent_at)

    async def _resend(self) -> bool:
        """Send once more with the same x-requestId; whether it was sent."""
        pause = self._backoff(1)
        if time.monotonic() + pause >= self._caller.answer_by:
            return False
        await asyncio.sleep(pause)
        self._unanswered = True
        COUNTERS.retries[(self._system, self._call.step)] += 1
        try:
            return (await self._send_once()).sent
        except (AtCapacity, NotSent, Unavailable):
            return False

    def _facts(self, classified: Classified[M]) -> CallFacts:
        return CallFacts(
            self._system,
            self._call.step,
            classified.what,
            status=classified.status,
            fault=classified.fault,
            milliseconds=self._milliseconds,
        )

    def _pause(self, state: RetryCallState) -> float:
        retry_after = self._last_failure.retry_after if self._last_failure else None
        if retry_after is None:
            return self._backoff(state.attempt_number)
        return retry_after + _jitter(self._limits.retry_first_ms / 1000)

    def _backoff(self, number: int) -> float:
        pause: float = min(self._limits.retry_first_ms * 2 ** min(number - 1, 30), self._limits.retry_max_ms)
        pause /= 1000
        return pause + _jitter(pause / 2)

    def _too_late(self, state: RetryCallState) -> bool:
        """Whether too little time is left for one more try."""
        # A create, accept or cancel needs its whole timeout (docs/architecture.md#claim).
        commits = self._call.kind is CallKind.COMMIT
        needed = self._limits.total_timeout_seconds if commits else SHORTEST_RETRY_SECONDS
        return time.monotonic() + state.upcoming_sleep + needed >= self._caller.answer_by


def _jitter(upwards: float) -> float:
    return random.uniform(0, upwards)  # noqa: S311 - spreads retries, guards nothing
