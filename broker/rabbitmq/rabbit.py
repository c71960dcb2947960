"""RabbitMQ for the rest of the broker: subscribe, pause, resume, publish.

Two connections, because an alarm blocks the one that publishes. Arrivals are passed to a callback; the tasks that handle
them belong to consumer.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Self

from broker.errors import RabbitAway
from broker.rabbitmq.confirms import ExchangePublisher, is_forged, publish_on_own_connection
from broker.rabbitmq.connection import (
    RPC_TIMEOUT_S,
    Backoff,
    DeclareRefused,
    SupervisedConnection,
    queue_depth,
    translate_errors,
)
from broker.rabbitmq.messages import Arrival, Outgoing, Published
from broker.rabbitmq.subscription import Subscription
from broker.tasks import cancel_and_wait
from broker.telemetry.counters import COUNTERS
from broker.telemetry.log import get_logger
from config.settings import Settings

START_WITHIN_S = 30.0
"""How long a start waits for RabbitMQ before it fails. After the start a lost connection is waited for without end."""
FLUSH_POLL_S = 0.01
ACKS_SETTLE_S = 0.5
"""Pause before a channel is closed, because RabbitMQ forgets the last acknowledgements (docs/rabbitmq.md#t17)."""

log = get_logger("rabbitmq.rabbit")


class Rabbit:
    """RabbitMQ for one process: `async with Rabbit(settings, name=…)`.

    Entering raises RabbitAway when RabbitMQ was not reached within `start_within` seconds.
    """

    def __init__(self, settings: Settings, *, name: str, start_within: float = START_WITHIN_S) -> None:
        self._settings = settings.rabbitmq
        self._name = name
        self._start_within = start_within
        self._publishing = SupervisedConnection(self._settings, f"{name} publish")
        self._consuming = SupervisedConnection(self._settings, f"{name} consume")
        self._publishers: dict[str, ExchangePublisher] = {}  # by exchange: a handful
        self._subscriptions: dict[str, Subscription] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._forged_lock = asyncio.Semaphore(1)
        self._paused = False

    async def __aenter__(self) -> Self:
        connections = (self._publishing, self._consuming)
        try:
            async with asyncio.timeout(self._start_within):
                for connection in connections:
                    connection.start()
                for connection in connections:
                    await connection.current()
        except TimeoutError as error:
            await self.close()
            problems = "; ".join(sorted({connection.problem for connection in connections}))
            within = f"within {self._start_within:.0f} s"
            raise RabbitAway(f"RabbitMQ was not reached {within}: {problems}") from error
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        return self._publishing.connected and self._consuming.connected

    @property
    def expected(self) -> frozenset[str]:
        """The queues that this process should consume now: none while paused."""
        return frozenset() if self._paused else frozenset(self._subscriptions)

    @property
    def alive(self) -> frozenset[str]:
        """The queues on which RabbitMQ has confirmed a consumer of this process that still exists."""
        return frozenset(name for name, s in self._subscriptions.items() if s.alive)

    async def takes_publishes(self, within: float) -> bool:
        """Whether RabbitMQ accepts publishes now: connected, and not blocked by an alarm (memory, disk)."""
        with suppress(TimeoutError, RabbitAway):
            async with asyncio.timeout(within):
                await (await self._publishing.current()).ready()
                return True
        return False

    async def depths(self, queues: Iterable[str]) -> dict[str, int]:
        """Messages ready in each of these queues; a missing queue is left out. Raises RabbitAway."""
        depths: dict[str, int] = {}
        with translate_errors("looking at queues"):
            async with asyncio.timeout(RPC_TIMEOUT_S):
                connection = await self._consuming.current()
        for queue in queues:
            with suppress(DeclareRefused):
                depths[queue] = await queue_depth(connection, queue)
        return depths

    def subscribe(self, queue: str, prefetch: int, on_arrival: Callable[[Arrival], None]) -> None:
        """Consume `queue` from now on, at most `prefetch` arrivals unacknowledged. Returns at once.

        `on_arrival` is called in the event loop once for each arrival and must return at once.
        """
        backoff = Backoff(self._settings)
        subscription = Subscription(self._consuming, backoff, queue, prefetch, on_arrival)
        self._subscriptions[queue] = subscription
        if not self._paused:
            subscription.resume()
        self._tasks.append(asyncio.create_task(subscription.run()))

    async def pause(self) -> None:
        """Stop consuming; returns when no arrival can come. Arrivals in flight can still be acknowledged."""
        self._paused = True
        for subscription in self._subscriptions.values():
            subscription.pause()
        for subscription in self._subscriptions.values():
            await subscription.wait_until_paused()

    def resume(self) -> None:
        """Consume again."""
        self._paused = False
        for subscription in self._subscriptions.values():
            subscription.resume()

    async def publish(self, out: Outgoing) -> Published:
        """Publish and return RabbitMQ's answer; waits for a connection and for the answer, within the publish timeout.

        Raises RabbitAway when it was not sent, or sent and not answered: the caller publishes the same again.
        Raises ValueError or TypeError for a message that AMQP cannot carry.
        """
        if is_forged(out):
            log.warning("forged-reply-address")
            return await publish_on_own_connection(
                self._settings, f"{self._name} alone", self._forged_lock, out
            )
        if out.exchange not in self._publishers:
            self._publishers[out.exchange] = ExchangePublisher(self._publishing, self._settings)
        began, outcome = monotonic(), "unknown"
        try:
            published = await self._publishers[out.exchange].publish(out)
            outcome = published.value
        finally:
            COUNTERS.published(out.exchange or "default", outcome, began)
        return published

    async def close(self) -> None:
        """Cancel the consumers, close their connection, wait for unanswered publishes, close the publishing connection."""
        await self.pause()
        if self._subscriptions:
            await asyncio.sleep(ACKS_SETTLE_S)
        await cancel_and_wait(self._tasks)
        await self._consuming.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.publish_timeout_seconds):
                while any(p.waiting for p in self._publishers.values()):  # noqa: ASYNC110 - once, at the end
                    await asyncio.sleep(FLUSH_POLL_S)
        await self._publishing.close()
