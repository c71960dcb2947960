"""RabbitMQ as the broker sees it: subscribe, pause, resume, publish.

Two connections, since an alarm stops the one that publishes. It hands arrivals over and owns no task of
theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Self

from broker.errors import RabbitAway
from broker.rabbitmq.confirms import ExchangePublisher, is_forged, publish_alone
from broker.rabbitmq.connection import RPC_TIMEOUT_S, Backoff, DeclareRefused, Link, depth, translated
from broker.rabbitmq.messages import Arrival, Outgoing, Published
from broker.rabbitmq.subscription import Subscription
from broker.tasks import cancel_and_wait
from broker.telemetry.counters import COUNTERS
from broker.telemetry.log import get_logger
from config.settings import Settings

START_WITHIN_S = 30.0
"""How long a start waits for RabbitMQ before it tells the person; later, waiting has no end."""
FLUSH_POLL_S = 0.01
ACKS_SETTLE_S = 0.5
"""RabbitMQ passes acks to a quorum queue in batches and forgets the last ones when the channel closes (80 of
200 on 3.10.8). Nothing in the protocol says when it is done; without the pause they would come again."""

log = get_logger("rabbitmq")


class Rabbit:
    """RabbitMQ for one process: `async with Rabbit(settings, name=…)`.

    Entering raises RabbitAway when it was not reached within `start_within` seconds.
    """

    def __init__(self, settings: Settings, *, name: str, start_within: float = START_WITHIN_S) -> None:
        self._settings = settings.rabbitmq
        self._name = name
        self._start_within = start_within
        self._publishing = Link(self._settings, f"{name} publish")
        self._consuming = Link(self._settings, f"{name} consume")
        self._outlets: dict[str, ExchangePublisher] = {}  # one per exchange that we name: a handful
        self._subscriptions: dict[str, Subscription] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._alone = asyncio.Semaphore(1)
        self._paused = False

    async def __aenter__(self) -> Self:
        links = (self._publishing, self._consuming)
        try:
            async with asyncio.timeout(self._start_within):
                for link in links:
                    link.start()
                for link in links:
                    await link.raw()
        except TimeoutError as error:
            await self.close()
            problems = "; ".join(sorted({link.problem for link in links}))
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
        """The queues that should have a consumer of ours now: none while paused."""
        return frozenset() if self._paused else frozenset(self._subscriptions)

    @property
    def alive(self) -> frozenset[str]:
        """The queues on which RabbitMQ has confirmed a consumer of ours that is still there."""
        return frozenset(name for name, s in self._subscriptions.items() if s.alive)

    async def takes_publishes(self, within: float) -> bool:
        """Whether RabbitMQ would take a publish now: connected, and no alarm (memory, disk) blocks it."""
        with suppress(TimeoutError, RabbitAway):
            async with asyncio.timeout(within):
                await (await self._publishing.raw()).ready()
                return True
        return False

    async def depths(self, queues: Iterable[str]) -> dict[str, int]:
        """Messages ready in each of these queues; one that does not exist is left out. Raises RabbitAway."""
        found: dict[str, int] = {}
        with translated("looking at queues"):
            async with asyncio.timeout(RPC_TIMEOUT_S):
                raw = await self._consuming.raw()
        for queue in queues:
            with suppress(DeclareRefused):
                found[queue] = await depth(raw, queue)
        return found

    def subscribe(self, queue: str, prefetch: int, on_arrival: Callable[[Arrival], None]) -> None:
        """Consume `queue` from now on, at most `prefetch` arrivals unacknowledged. Waits for nothing.

        `on_arrival` is called once for each, in the loop, and must return at once.
        """
        backoff = Backoff(self._settings)
        subscription = Subscription(self._consuming, backoff, queue, prefetch, on_arrival)
        self._subscriptions[queue] = subscription
        if not self._paused:
            subscription.resume()
        self._keepers.append(asyncio.create_task(subscription.keep()))

    async def pause(self) -> None:
        """Stop consuming; returns when no arrival can come. What is in flight can still be acknowledged."""
        self._paused = True
        for subscription in self._subscriptions.values():
            subscription.pause()
        for subscription in self._subscriptions.values():
            await subscription.paused()

    def resume(self) -> None:
        """Consume again."""
        self._paused = False
        for subscription in self._subscriptions.values():
            subscription.resume()

    async def publish(self, out: Outgoing) -> Published:
        """Publish on the current connection, or wait for one, until RabbitMQ's word or the publish timeout.

        Raises RabbitAway when it was not sent, or sent with an unknown fate: to be repeated as it is.
        Raises ValueError or TypeError for what AMQP cannot carry.
        """
        if is_forged(out):
            log.warning("odd-reply-address")
            return await publish_alone(self._settings, f"{self._name} alone", self._alone, out)
        if out.exchange not in self._outlets:
            self._outlets[out.exchange] = ExchangePublisher(self._publishing, self._settings)
        began, said = monotonic(), "unknown"
        try:
            published = await self._outlets[out.exchange].publish(out)
            said = published.value
        finally:
            COUNTERS.published(out.exchange or "default", said, began)
        return published

    async def close(self) -> None:
        """Cancel the consumers, close their connection, wait for publishes under way, close theirs."""
        await self.pause()
        if self._subscriptions:
            await asyncio.sleep(ACKS_SETTLE_S)
        await cancel_and_wait(self._keepers)
        await self._consuming.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.publish_timeout_seconds):
                while any(o.waiting for o in self._outlets.values()):  # noqa: ASYNC110 - once, at the end
                    await asyncio.sleep(FLUSH_POLL_S)
        await self._publishing.close()
