"""The bulkhead of one external system: at most so many calls in flight, a bounded waiting list, its circuit breaker,
and the pause that the system asked for with Retry-After.

First come, first served. It admits and rejects calls; it sends nothing and retries nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from broker.clients.breaker import Admission, Breaker, CallHealth

# One Retry-After, perhaps meant for one citizen, must not close a whole jobcenter's system for an hour.
LONGEST_PAUSE_SECONDS = 60.0


class CallRejected(Exception):
    """The call was not admitted.

    `what`: why, as a word for `CallFacts`. `retry_after`: seconds that are left of a pause the system asked for.
    """

    def __init__(self, what: str, retry_after: float | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.retry_after = retry_after


class Bulkhead:
    """At most `in_flight` calls at once; at most `waiting` more wait for a slot, in order."""

    def __init__(self, in_flight: int, waiting: int, breaker: Breaker) -> None:
        self._free_slots = in_flight
        self._max_waiting = waiting
        self._breaker = breaker
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._paused_until = 0.0

    async def acquire(self, until: float) -> Admission:
        """Take a slot for one call, which must `release` it.

        Raises CallRejected, at the latest at `until` (seconds of time.monotonic()).
        """
        self._check()
        if self._free_slots > 0:
            self._free_slots -= 1
        else:
            await self._wait_for_slot(until)
        try:
            return self._admit()
        except CallRejected:
            self._free_slot()
            raise

    def release(self, admission: Admission, health: CallHealth) -> None:
        """Give the slot to the first waiting call, and tell the breaker the result of this one."""
        self._breaker.record(admission, health, time.monotonic())
        # If the breaker opened just now, the first waiting call is rejected and frees the slot for the next.
        self._free_slot()

    def pause(self, seconds: float) -> None:
        """The system asked for a pause: admit no call until it is over."""
        self._paused_until = max(self._paused_until, time.monotonic() + min(seconds, LONGEST_PAUSE_SECONDS))

    def _check(self) -> None:
        now = time.monotonic()
        if self._breaker.refuses(now):
            raise CallRejected("breaker-open")
        if now < self._paused_until:
            raise CallRejected("retry-after", self._paused_until - now)

    def _admit(self) -> Admission:
        self._check()
        admission = self._breaker.admit(time.monotonic())
        if admission is None:
            raise CallRejected("breaker-open")
        return admission

    async def _wait_for_slot(self, until: float) -> None:
        if len(self._waiters) >= self._max_waiting:
            raise CallRejected("waiting-list-full")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(until - time.monotonic()):
                await waiter
        except TimeoutError:
            self._stop_waiting(waiter)
            raise CallRejected("waited-too-long") from None
        except BaseException:
            self._stop_waiting(waiter)
            raise

    def _stop_waiting(self, waiter: asyncio.Future[None]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif waiter.done() and not waiter.cancelled():
            # The slot was given in the same moment in which the wait ended.
            self._free_slot()

    def _free_slot(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free_slots += 1
