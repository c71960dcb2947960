"""The gate before one external system: its cap of calls in flight, the bounded list of those that wait, its
breaker, and the pause that the system itself asked for with Retry-After.

First come, first served. It bounds and refuses; it sends nothing and retries nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from broker.clients.breaker import Admission, Breaker, CallHealth

# One Retry-After, perhaps meant for one citizen, must not close a whole jobcenter's system for an hour.
LONGEST_HOLD_SECONDS = 60.0


class CallRejected(Exception):
    """Turned away.

    `retry_after`: the pause that the system itself asked for still has so many seconds to run.
    """

    def __init__(self, what: str, retry_after: float | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.retry_after = retry_after


class Bulkhead:
    """At most `in_flight` at once; at most `waiting` more wait their turn, in order."""

    def __init__(self, in_flight: int, waiting: int, breaker: Breaker) -> None:
        self._free = in_flight
        self._waiting = waiting
        self._breaker = breaker
        self._list: deque[asyncio.Future[None]] = deque()
        self._held_until = 0.0

    async def enter(self, until: float) -> Admission:
        """A place for one call, to be given back with `leave`.

        Raises NoEntry, at the latest at `until` (monotonic).
        """
        self._check()
        if self._free > 0:
            self._free -= 1
        else:
            await self._wait_turn(until)
        try:
            return self._admit()
        except CallRejected:
            self._pass_on()
            raise

    def leave(self, as_: Admission, result: CallHealth) -> None:
        """Gives the place back, to the first of those that wait, and tells the breaker what was learnt."""
        self._breaker.record(as_, result, time.monotonic())
        # If it opened just now, the first of those that wait finds out, and passes the place on to the next.
        self._pass_on()

    def hold(self, seconds: float) -> None:
        """The system asked for a pause: nothing is sent until it is over."""
        self._held_until = max(self._held_until, time.monotonic() + min(seconds, LONGEST_HOLD_SECONDS))

    def _check(self) -> None:
        now = time.monotonic()
        if self._breaker.refuses(now):
            raise CallRejected("breaker-open")
        if now < self._held_until:
            raise CallRejected("retry-after", self._held_until - now)

    def _admit(self) -> Admission:
        self._check()
        admitted = self._breaker.admit(time.monotonic())
        if admitted is None:
            raise CallRejected("breaker-open")
        return admitted

    async def _wait_turn(self, until: float) -> None:
        if len(self._list) >= self._waiting:
            raise CallRejected("waiting-list-full")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._list.append(turn)
        try:
            async with asyncio.timeout(until - time.monotonic()):
                await turn
        except TimeoutError:
            self._give_up(turn)
            raise CallRejected("waited-too-long") from None
        except BaseException:
            self._give_up(turn)
            raise

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn in self._list:
            self._list.remove(turn)
        elif turn.done() and not turn.cancelled():
            # The place came in the same moment as the end of the wait.
            self._pass_on()

    def _pass_on(self) -> None:
        while self._list:
            turn = self._list.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
