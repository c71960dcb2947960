"""Consumes the broker's queues: starts a task for each arrival, and owns these tasks, whatever happens to the channel.

Concurrency is the prefetch; there is no queue and no semaphore in this process. The consumer pauses while the ledger is
away, drains within a deadline, and a watchdog reports consumers that do not come back. It never acknowledges: the
handler of an arrival does, as its last step.
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
READY_CALLBACK_TIMEOUT_S = 2.0
CANCEL_TIMEOUT_S = 5.0
"""How long a cancelled task may still clean up."""

log = get_logger("rabbitmq.consumer")


class LedgerAvailability(Protocol):
    """Whether PostgreSQL can be reached. The ledger implements it; this package does not import the ledger."""

    @property
    def away(self) -> bool: ...

    async def wait_until_away(self) -> None: ...

    async def wait_until_back(self) -> None: ...


class Consumer:
    """`async with Consumer(…)` consumes `queues` (name: prefetch) until `drain`.

    `handle` is called once for each arrival. `on_ready` is called at each change of readiness; `on_give_up` with a
    sentence, when a problem stayed for longer than `watchdog.recover_within_seconds`.
    """

    def __init__(
        self,
        settings: Settings,
        rabbit: Rabbit,
        handle: Callable[[Arrival], Awaitable[object]],
        *,
        queues: Mapping[str, int],
        ledger: LedgerAvailability,
        on_give_up: Callable[[str], object],
        on_ready: Callable[[bool], Awaitable[object] | object],
    ) -> None:
        self._watchdog = settings.watchdog
        self._rabbit, self._handle, self._queues, self._ledger = rabbit, handle, dict(queues), ledger
        self._on_give_up, self._on_ready = on_give_up, on_ready
        self._running: dict[asyncio.Task[object], Arrival] = {}
        self._failed: list[Arrival] = []  # not acknowledged: at most the prefetch of each queue
        self._services: list[asyncio.Task[None]] = []
        self._stopping = False
        self._reported_ready = False
        self.bugs = 0

    async def __aenter__(self) -> Self:
        for queue, prefetch in self._queues.items():
            self._rabbit.subscribe(queue, prefetch, self._start)
        for service in (self._follow_ledger, self._follow_readiness, self._watch):
            task = asyncio.create_task(service())
            task.add_done_callback(self._service_ended)
            self._services.append(task)
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._stopping:
            await self.drain(0)

    def consume(self, queue: str, prefetch: int) -> None:
        """Consume one more queue from now on. A queue that is consumed already keeps its prefetch."""
        if queue not in self._queues:
            self._queues[queue] = prefetch
            self._rabbit.subscribe(queue, prefetch, self._start)

    @property
    def in_flight(self) -> int:
        """The number of arrivals that are being handled."""
        return len(self._running)

    @property
    def ready(self) -> bool:
        """Whether every queue is consumed and the ledger can be reached."""
        return not (self._stopping or self._ledger.away or self.problem())

    def problem(self) -> str | None:
        """Why arrivals are not handled, as a sentence; None if they are."""
        if not self._rabbit.connected:
            return "RabbitMQ is not connected"
        if missing := self._rabbit.expected - self._rabbit.alive:
            return f"no consumer on {', '.join(sorted(missing))}"
        # An arrival that ended by a bug holds its place in the prefetch until its channel closes.
        self._failed = [arrival for arrival in self._failed if not arrival.lost]
        failed = Counter(arrival.queue for arrival in self._failed)
        clogged = [queue for queue, count in failed.items() if 2 * count >= self._queues[queue]]
        return f"bugs hold half of the prefetch of {', '.join(sorted(clogged))}" if clogged else None

    async def drain(self, within: float) -> int:
        """Stop consuming, and let running tasks end within so many seconds. Returns how many were cut off.

        Their arrivals are not acknowledged: RabbitMQ redelivers them, to this process or another.
        """
        self._stopping = True
        deadline = time.monotonic() + within
        for service in self._services:
            service.cancel()
        await self._report_ready(False)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._rabbit.pause(), max(within, CANCEL_TIMEOUT_S))
        while self._running and time.monotonic() < deadline:
            await asyncio.wait(self._running, timeout=deadline - time.monotonic())
        unfinished = list(self._running)
        for task in unfinished:
            task.cancel()
        if unfinished:
            log.warning("drain-cut-off", count=len(unfinished))
            await asyncio.wait(unfinished, timeout=CANCEL_TIMEOUT_S)
        return len(unfinished)

    def _start(self, arrival: Arrival) -> None:
        task = asyncio.ensure_future(self._handle(arrival))
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
            log.error("arrival-failed", queue=arrival.queue, count=self.bugs, exc_info=error)

    async def _follow_ledger(self) -> None:
        """Consume only while the ledger can be reached: without it no request can be settled."""
        while True:
            await self._ledger.wait_until_away()
            log.warning("paused", reason="the ledger is away")
            await self._rabbit.pause()
            await self._ledger.wait_until_back()
            self._rabbit.resume()
            log.info("resumed")

    async def _follow_readiness(self) -> None:
        while True:
            if self.ready != self._reported_ready:
                await self._report_ready(self.ready)
            await asyncio.sleep(READINESS_TICK_S)

    async def _report_ready(self, ready: bool) -> None:
        """Call `on_ready`. It may fail, as it does while the ledger is away; the next tick calls it again."""
        try:
            result = self._on_ready(ready)
            if isinstance(result, Awaitable):
                async with asyncio.timeout(READY_CALLBACK_TIMEOUT_S):
                    await result
        except Exception as error:
            log.warning("readiness-not-reported", reason=type(error).__name__)
            return
        self._reported_ready = ready
        log.info("readiness", ready=ready)

    async def _watch(self) -> None:
        """Call `on_give_up`, once, when a problem stayed for longer than `watchdog.recover_within_seconds`."""
        since: float | None = None
        while True:
            await self._measured_sleep()
            problem = None if self._ledger.away else self.problem()
            if problem is None:
                since = None
                continue
            since = since or time.monotonic()
            log.error("consumers-missing", reason=problem, seconds=round(time.monotonic() - since, 1))
            if time.monotonic() - since > self._watchdog.recover_within_seconds:
                self._on_give_up(problem)
                return

    async def _measured_sleep(self) -> None:
        """The pause between two checks. If it lasts much longer than asked for, the event loop was blocked."""
        due = time.monotonic() + self._watchdog.check_seconds
        await asyncio.sleep(self._watchdog.check_seconds)
        lag = time.monotonic() - due
        if lag > self._watchdog.loop_lag_seconds:
            log.error("loop-lag", seconds=round(lag, 1))

    def _service_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("consumer-task-failed", exc_info=error)
            self._on_give_up("a part of the consumer ended by a bug")
