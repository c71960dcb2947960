"""One consumed queue on a channel of its own, so that its faults do not affect other queues.

After a lost channel, a consumer that RabbitMQ cancelled or a missing queue it tries again after a pause, without end.
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
    SupervisedConnection,
    close_quietly,
    open_channel,
    translate_errors,
    wait_for_first,
)
from broker.rabbitmq.frames import ConsumeTap
from broker.rabbitmq.messages import AckToken, Arrival, read_arrival
from broker.telemetry.log import get_logger

log = get_logger("rabbitmq.subscription")

CANCELLED = "by RabbitMQ: the queue is deleted or moving, or (4.3 and later) a message was held past its consumer timeout"


class Subscription:
    """Consumes `queue` while resumed, at most `prefetch` arrivals unacknowledged."""

    def __init__(
        self,
        connection: SupervisedConnection,
        backoff: Backoff,
        queue: str,
        prefetch: int,
        on_arrival: Callable[[Arrival], None],
    ) -> None:
        self._connection, self._backoff = connection, backoff
        self._queue, self._prefetch, self._on_arrival = queue, prefetch, on_arrival
        self._resumed, self._paused, self._cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._idle = asyncio.Event()  # there is no consumer
        self._idle.set()
        self.alive = False

    def pause(self) -> None:
        self._resumed.clear()
        self._paused.set()

    async def wait_until_paused(self) -> None:
        """Return when no arrival can come any more. Bounded, because every step until then has a timeout."""
        await self._idle.wait()

    def resume(self) -> None:
        self._paused.clear()
        self._resumed.set()

    async def run(self) -> None:
        """Consume without end, over lost channels, lost connections and a missing queue."""
        while True:
            try:
                with translate_errors("consuming"):
                    connection = await self._connection.current()
                    channel = await open_channel(connection, confirms=False)
                    try:
                        await self._serve(channel)
                    finally:
                        await close_quietly(channel.close())
            except RabbitAway as error:
                log.error("queue-not-consumed", queue=self._queue, reason=f"{error!s:.300}")
            await self._backoff.pause()

    async def _serve(self, channel: Channel) -> None:
        """Consume until the channel is lost. A pause keeps it open: arrivals in flight are acknowledged on it."""
        ConsumeTap(channel, self._delivered)
        channel.on_consumer_cancel_callbacks.add(lambda _: self._cancelled.set())
        await channel.basic_qos(prefetch_count=self._prefetch, timeout=RPC_TIMEOUT_S)
        while not channel.is_closed:
            await wait_for_first(self._resumed.wait(), channel.closing)
            if self._resumed.is_set():
                await self._consume(channel)
        raise RabbitAway("the channel was lost")

    async def _consume(self, channel: Channel) -> None:
        self._idle.clear()
        try:
            # RabbitMQ closes the channel if the queue is missing: here nothing is in flight on it.
            await channel.queue_declare(self._queue, passive=True, timeout=RPC_TIMEOUT_S)
            await self._consume_until_stopped(channel)
        finally:
            self._idle.set()
        if self._cancelled.is_set():
            log.error("consumer-cancelled", queue=self._queue, reason=CANCELLED)
            await self._backoff.pause()

    async def _consume_until_stopped(self, channel: Channel) -> None:
        """Consume until paused, cancelled by RabbitMQ, or the channel is lost."""
        self._cancelled.clear()
        consuming = await channel.basic_consume(self._queue, unused_callback, timeout=RPC_TIMEOUT_S)
        self.alive = True
        self._backoff.reset()
        log.info("consuming", queue=self._queue)
        try:
            await wait_for_first(self._paused.wait(), self._cancelled.wait(), channel.closing)
        finally:
            self.alive = False
        if not self._cancelled.is_set():
            await channel.basic_cancel(consuming.consumer_tag or "", timeout=RPC_TIMEOUT_S)

    def _delivered(
        self, tap: ConsumeTap, tag: int, redelivered: bool, properties: Basic.Properties, body: bytes
    ) -> None:
        arrival = read_arrival(self._queue, body, properties, redelivered, AckToken(tap, tag))
        try:
            # It only starts a task: the library would cancel a callback with the channel (docs/rabbitmq.md#t1).
            self._on_arrival(arrival)
        except Exception:
            log.exception("arrival-callback-failed", queue=self._queue)


async def unused_callback(_message: object) -> None:
    """The callback for aiormq. It must never run: frames.py handles deliveries before aiormq gets them."""
    raise RuntimeError("an arrival came through the library")
