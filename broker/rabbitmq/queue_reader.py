"""A dead-letter queue as a drawer: how much lies in it, take one out, lay one in, throw one away.

On a short connection of its own, for the one pass that keeps these queues true; work queues are consumed
elsewhere. Nothing is nacked: what was taken and not acknowledged lies in the queue again when the drawer is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from broker.errors import RabbitAway
from broker.rabbitmq.confirms import ready_of
from broker.rabbitmq.connection import (
    RPC_TIMEOUT_S,
    Channel,
    Connection,
    connected,
    depth,
    open_channel,
    translated,
)
from broker.rabbitmq.frames import PublishTap
from broker.rabbitmq.messages import AckToken, Arrival, Outgoing, Published, read_arrival
from broker.rabbitmq.rabbit import ACKS_SETTLE_S
from config.sections import RabbitmqSettings

ACK_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class FetchedMessage:
    """One message taken out of a queue, with where it was published to first, as far as RabbitMQ knows."""

    arrival: Arrival
    exchange: str
    routing_key: str = field(repr=False)


class _Patient:
    """The library's way to acknowledge waits for a place in its queue; here only so long."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def is_closed(self) -> bool:
        return self._channel.is_closed

    async def basic_ack(self, delivery_tag: int, multiple: bool = False, wait: bool = False) -> None:
        async with asyncio.timeout(ACK_TIMEOUT_S):
            await self._channel.basic_ack(delivery_tag, multiple, wait)


class QueueReader:
    """One channel for everything, so that nothing overtakes anything."""

    def __init__(self, raw: Connection, channel: Channel, publish_timeout: float) -> None:
        self._raw = raw
        self._channel = channel
        self._publishing = PublishTap(channel)
        self._publish_timeout = publish_timeout
        self.acked = False

    async def depth(self, queue: str) -> int:
        """Messages ready in the queue. Raises DeclareRefused when it does not exist, RabbitAway."""
        return await depth(self._raw, queue)

    async def get(self, queue: str) -> FetchedMessage | None:
        """The oldest message, not acknowledged yet; None when the queue is empty. Raises RabbitAway."""
        with translated("looking at dead letters"):
            message = await self._channel.basic_get(queue, timeout=RPC_TIMEOUT_S)
        return self._drawn(queue, message)

    def _drawn(self, queue: str, message: DeliveredMessage) -> FetchedMessage | None:
        delivery = message.delivery
        if not isinstance(delivery, Basic.GetOk):
            return None
        receipt = AckToken(_Patient(self._channel), delivery.delivery_tag or 0)
        properties = message.header.properties
        arrival = read_arrival(queue, message.body, properties, bool(delivery.redelivered), receipt)
        return FetchedMessage(arrival, delivery.exchange or "", delivery.routing_key or "")

    async def put(self, out: Outgoing) -> Published:
        """Publish and wait for RabbitMQ's word. Raises RabbitAway."""
        ready = ready_of(out)
        with translated("publishing a dead letter"):
            async with asyncio.timeout(self._publish_timeout):
                await self._raw.ready()
                return await self._publishing.publish(ready, within=self._publish_timeout)

    async def ack(self, drawn: FetchedMessage) -> None:
        """Acknowledge. Raises RabbitAway when that is not possible any more."""
        if not await drawn.arrival.ack():
            raise RabbitAway("the channel was lost")
        self.acked = True


@asynccontextmanager
async def open_queue_reader(settings: RabbitmqSettings, name: str) -> AsyncIterator[QueueReader]:
    """A drawer that lives as long as its block. Raises RabbitAway."""
    async with connected(settings.url.get_secret_value(), name, settings.heartbeat_seconds) as raw:
        with translated("opening a channel"):
            channel = await open_channel(raw, confirms=True)
        opened = QueueReader(raw, channel, settings.publish_timeout_seconds)
        yield opened
        if opened.acked:
            await asyncio.sleep(ACKS_SETTLE_S)
