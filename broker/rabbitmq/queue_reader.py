"""Reads, writes and acknowledges single messages of a dead-letter queue, and counts its messages.

On a temporary connection, for the reconciliation of these queues with the ledger (dead_letters/reconcile.py). There is
no nack: a message that was fetched and not acknowledged is back in the queue when the reader is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from broker.errors import RabbitAway
from broker.rabbitmq.confirms import encode
from broker.rabbitmq.connection import (
    RPC_TIMEOUT_S,
    Channel,
    Connection,
    open_channel,
    queue_depth,
    temporary_connection,
    translate_errors,
)
from broker.rabbitmq.frames import PublishTap
from broker.rabbitmq.messages import AckToken, Arrival, Outgoing, Published, read_arrival
from broker.rabbitmq.rabbit import ACKS_SETTLE_S
from config.sections import RabbitmqSettings

ACK_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class FetchedMessage:
    """One message fetched from a queue, with the exchange and routing key that RabbitMQ names for it."""

    arrival: Arrival
    exchange: str
    routing_key: str = field(repr=False)


class _AckWithTimeout:
    """The library's acknowledgement, bounded: it waits for a place in the library's write queue."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def is_closed(self) -> bool:
        return self._channel.is_closed

    async def basic_ack(self, delivery_tag: int, multiple: bool = False, wait: bool = False) -> None:
        async with asyncio.timeout(ACK_TIMEOUT_S):
            await self._channel.basic_ack(delivery_tag, multiple, wait)


class QueueReader:
    """Works on one channel, so that the order of all steps is kept."""

    def __init__(self, connection: Connection, channel: Channel, publish_timeout: float) -> None:
        self._connection = connection
        self._channel = channel
        self._publishing = PublishTap(channel)
        self._publish_timeout = publish_timeout
        self.acked = False

    async def depth(self, queue: str) -> int:
        """Messages ready in the queue. Raises DeclareRefused when it does not exist, RabbitAway."""
        return await queue_depth(self._connection, queue)

    async def get(self, queue: str) -> FetchedMessage | None:
        """Fetch the oldest message, without acknowledging it; None when the queue is empty. Raises RabbitAway."""
        with translate_errors("looking at dead letters"):
            message = await self._channel.basic_get(queue, timeout=RPC_TIMEOUT_S)
        return self._fetched(queue, message)

    def _fetched(self, queue: str, message: DeliveredMessage) -> FetchedMessage | None:
        delivery = message.delivery
        if not isinstance(delivery, Basic.GetOk):
            return None
        ack_token = AckToken(_AckWithTimeout(self._channel), delivery.delivery_tag or 0)
        properties = message.header.properties
        arrival = read_arrival(queue, message.body, properties, bool(delivery.redelivered), ack_token)
        return FetchedMessage(arrival, delivery.exchange or "", delivery.routing_key or "")

    async def put(self, out: Outgoing) -> Published:
        """Publish and wait for RabbitMQ's answer. Raises RabbitAway."""
        message = encode(out)
        with translate_errors("publishing a dead letter"):
            async with asyncio.timeout(self._publish_timeout):
                await self._connection.ready()
                return await self._publishing.publish(message, within=self._publish_timeout)

    async def ack(self, fetched: FetchedMessage) -> None:
        """Acknowledge. Raises RabbitAway when the channel is closed."""
        if not await fetched.arrival.ack():
            raise RabbitAway("the channel was lost")
        self.acked = True


@asynccontextmanager
async def open_queue_reader(settings: RabbitmqSettings, name: str) -> AsyncIterator[QueueReader]:
    """A reader for one block. Raises RabbitAway."""
    async with temporary_connection(
        settings.url.get_secret_value(), name, settings.heartbeat_seconds
    ) as connection:
        with translate_errors("opening a channel"):
            channel = await open_channel(connection, confirms=True)
        reader = QueueReader(connection, channel, settings.publish_timeout_seconds)
        yield reader
        if reader.acked:
            await asyncio.sleep(ACKS_SETTLE_S)
