"""One consumed queue on a channel of its own; what happens to it touches no other queue.

A lost channel, a consumer that the server cancels and a queue that is away are met with a new try after a
pause, for ever. An arrival is handed over and never waited for: the library cancels its callbacks with the
channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pamqp.commands import Basic

from broker.errors import RabbitAway
from broker.rabbitmq.connection import (
    RPC_TIMEOUT_S,
    Backoff,
    Channel,
    Link,
    first_of,
    open_channel,
    quietly,
    translated,
)
from broker.rabbitmq.frames import ConsumeTap
from broker.rabbitmq.messages import AckToken, Arrival, read_arrival
from broker.telemetry.log import get_logger

log = get_logger("rabbitmq.subscription")

CANCELLED = "by RabbitMQ: the queue is deleted or moving, or (4.3 and later) a message was held past its consumer timeout"


class Subscription:
    """Consumes `queue` while resumed, at most `prefetch` arrivals unacknowledged."""

    def __init__(
        self, link: Link, backoff: Backoff, queue: str, prefetch: int, on_arrival: Callable[[Arrival], None]
    ) -> None:
        self._link, self._backoff = link, backoff
        self._queue, self._prefetch, self._on_arrival = queue, prefetch, on_arrival
        self._go, self._halt, self._cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.alive = False

    def pause(self) -> None:
        self._go.clear()
        self._halt.set()

    async def paused(self) -> None:
        """Returns when no arrival can come any more. Bounded: every step on the way has a timeout."""
        await self._idle.wait()

    def resume(self) -> None:
        self._halt.clear()
        self._go.set()

    async def keep(self) -> None:
        """Consume for ever, over lost channels, lost connections and a queue that is away."""
        while True:
            try:
                with translated("consuming"):
                    raw = await self._link.raw()
                    channel = await open_channel(raw, confirms=False)
                    try:
                        await self._serve(channel)
                    finally:
                        await quietly(channel.close())
            except RabbitAway as error:
                log.error("queue-not-consumed", queue=self._queue, reason=f"{error!s:.300}")
            await self._backoff.pause()

    async def _serve(self, channel: Channel) -> None:
        """Until the channel is gone; a pause keeps it, so that what is in flight can be acknowledged."""
        ConsumeTap(channel, self._delivered)
        channel.on_consumer_cancel_callbacks.add(lambda _: self._cancelled.set())
        await channel.basic_qos(prefetch_count=self._prefetch, timeout=RPC_TIMEOUT_S)
        while not channel.is_closed:
            await first_of(self._go.wait(), channel.closing)
            if self._go.is_set():
                await self._consume(channel)
        raise RabbitAway("the channel was lost")

    async def _consume(self, channel: Channel) -> None:
        self._idle.clear()
        try:
            # A queue that is away closes the channel here, and not one with something in flight.
            await channel.queue_declare(self._queue, passive=True, timeout=RPC_TIMEOUT_S)
            await self._consume_until_stopped(channel)
        finally:
            self._idle.set()
        if self._cancelled.is_set():
            log.error("consumer-cancelled", queue=self._queue, reason=CANCELLED)
            await self._backoff.pause()

    async def _consume_until_stopped(self, channel: Channel) -> None:
        """Until paused, cancelled by the server, or without a channel."""
        self._cancelled.clear()
        consuming = await channel.basic_consume(self._queue, not_ours, timeout=RPC_TIMEOUT_S)
        self.alive = True
        self._backoff.reset()
        log.info("consuming", queue=self._queue)
        try:
            await first_of(self._halt.wait(), self._cancelled.wait(), channel.closing)
        finally:
            self.alive = False
        if not self._cancelled.is_set():
            await channel.basic_cancel(consuming.consumer_tag or "", timeout=RPC_TIMEOUT_S)

    def _delivered(
        self, on: ConsumeTap, tag: int, redelivered: bool, properties: Basic.Properties, body: bytes
    ) -> None:
        arrival = read_arrival(self._queue, body, properties, redelivered, AckToken(on, tag))
        try:
            self._on_arrival(arrival)
        except Exception:
            log.exception("arrival-not-taken", queue=self._queue)


async def not_ours(_message: object) -> None:
    """What the library calls for an arrival; it never does, because each is taken before it (`traffic.py`)."""
    raise RuntimeError("an arrival came through the library")
