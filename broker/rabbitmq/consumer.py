"""Owns the tasks: each arrival becomes one, carried to its end whatever becomes of the channel it came on.

Concurrency is the prefetch; there is no queue and no semaphore here. It pauses while the ledger is away,
drains within a deadline, and its watchdog says when consumers do not come back. It never acknowledges:
`carry` does, last.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, Self

from broker.rabbitmq import Arrival, Rabbit
from broker.telemetry.log import get_logger
from config.settings import Settings

READINESS_TICK_S = 0.2
TELL_TIMEOUT_S = 2.0
CANCEL_TIMEOUT_S = 5.0
"""How long a cancelled task may still clean up."""

log = get_logger("rabbitmq.consumer")


class LedgerAvailability(Protocol):
    """What the consumer knows of the ledger: whether PostgreSQL can be reached."""

    @property
    def away(self) -> bool: ...

    async def wait_until_away(self) -> None: ...

    async def wait_until_back(self) -> None: ...


class Consumer:
    """`async with Consumer(…)` consumes `queues` (name: prefetch) until `drain`."""

    def __init__(
        self,
        settings: Settings,
        rabbit: Rabbit,
        carry: Callable[[Arrival], Awaitable[object]],
        *,
        queues: Mapping[str, int],
        ledger: LedgerAvailability,
        on_hopeless: Callable[[str], object],
        on_ready: Callable[[bool], Awaitable[object] | object],
    ) -> None:
        self._watchdog = settings.watchdog
        self._rabbit, self._carry, self._queues, self._ledger = rabbit, carry, dict(queues), ledger
        self._on_hopeless, self._on_ready = on_hopeless, on_ready
        self._running: dict[asyncio.Task[object], Arrival] = {}
        self._failed: list[Arrival] = []  # still unacknowledged: at most the prefetch of each queue
        self._services: list[asyncio.Task[None]] = []
        self._stopping = False
        self._told = False
        self.bugs = 0

    async def __aenter__(self) -> Self:
        for queue, prefetch in self._queues.items():
            self._rabbit.subscribe(queue, prefetch, self._take)
        for service in (self._follow_ledger, self._follow_readiness, self._watch):
            task = asyncio.create_task(service())
            task.add_done_callback(self._service_ended)
            self._services.append(task)
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._stopping:
            await self.drain(0)

    def consume(self, queue: str, prefetch: int) -> None:
        """Consume one more queue from now on; one that is consumed already stays as it is."""
        if queue not in self._queues:
            self._queues[queue] = prefetch
            self._rabbit.subscribe(queue, prefetch, self._take)

    @property
    def in_flight(self) -> int:
        """Arrivals that are being carried."""
        return len(self._running)

    @property
    def ready(self) -> bool:
        """Every queue is consumed and the ledger is there."""
        return not (self._stopping or self._ledger.away or self.problem())

    def problem(self) -> str | None:
        """What keeps arrivals from being carried, as a sentence; None when nothing does."""
        if not self._rabbit.connected:
            return "RabbitMQ is not connected"
        if missing := self._rabbit.expected - self._rabbit.alive:
            return f"no consumer on {', '.join(sorted(missing))}"
        self._failed = [arrival for arrival in self._failed if not arrival.lost]
        stuck = Counter(arrival.queue for arrival in self._failed)
        clogged = [q for q, n in stuck.items() if 2 * n >= self._queues[q]]
        return f"bugs hold half of the prefetch of {', '.join(sorted(clogged))}" if clogged else None

    async def drain(self, within: float) -> int:
        """Stop consuming and let what is in flight finish within so many seconds; how many were cut off.

        What is cut off is not acknowledged: it comes again, here or elsewhere.
        """
        self._stopping = True
        until = time.monotonic() + within
        for service in self._services:
            service.cancel()
        await self._tell(False)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._rabbit.pause(), max(within, CANCEL_TIMEOUT_S))
        while self._running and time.monotonic() < until:
            await asyncio.wait(self._running, timeout=until - time.monotonic())
        left = list(self._running)
        for task in left:
            task.cancel()
        if left:
            log.warning("drain-cut-off", count=len(left))
            await asyncio.wait(left, timeout=CANCEL_TIMEOUT_S)
        return len(left)

    def _take(self, arrival: Arrival) -> None:
        task = asyncio.ensure_future(self._carry(arrival))
        self._running[task] = arrival
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        arrival = self._running.pop(task)
        if task.cancelled() and self._stopping:
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self.bugs += 1
            self._failed.append(arrival)
            log.error("carry-failed", queue=arrival.queue, count=self.bugs, exc_info=error)

    async def _follow_ledger(self) -> None:
        """Consume only while the ledger is there: without it nothing can be settled."""
        while True:
            await self._ledger.wait_until_away()
            log.warning("paused", reason="the ledger is away")
            await self._rabbit.pause()
            await self._ledger.wait_until_back()
            self._rabbit.resume()
            log.info("resumed")

    async def _follow_readiness(self) -> None:
        while True:
            if self.ready != self._told:
                await self._tell(self.ready)
            await asyncio.sleep(READINESS_TICK_S)

    async def _tell(self, ready: bool) -> None:
        """Whoever is told may fail, as the ledger does when it is away; it is told again at the next tick."""
        try:
            told = self._on_ready(ready)
            if isinstance(told, Awaitable):
                async with asyncio.timeout(TELL_TIMEOUT_S):
                    await told
        except Exception as error:
            log.warning("readiness-not-told", reason=type(error).__name__)
            return
        self._told = ready
        log.info("readiness", ready=ready)

    async def _watch(self) -> None:
        """Call `on_hopeless`, once, when a problem has stayed for longer than it may."""
        since: float | None = None
        while True:
            await self._measured_sleep()
            problem = None if self._ledger.away else self.problem()
            if problem is None:
                since = None
                continue
            since = since or time.monotonic()
            log.error("not-whole", reason=problem, seconds=round(time.monotonic() - since, 1))
            if time.monotonic() - since > self._watchdog.recover_within_seconds:
                self._on_hopeless(problem)
                return

    async def _measured_sleep(self) -> None:
        """A pause between two looks; one that lasts much longer says that the loop was stuck."""
        due = time.monotonic() + self._watchdog.check_seconds
        await asyncio.sleep(self._watchdog.check_seconds)
        lag = time.monotonic() - due
        if lag > self._watchdog.loop_lag_seconds:
            log.error("loop-lag", seconds=round(lag, 1))

    def _service_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("consumer-broken", exc_info=error)
            self._on_hopeless("a part of the consumer ended by a bug")
