"""Confirmed publishing: every publish has a timeout and ends confirmed, unroutable, refused, or with RabbitAway.

One channel per exchange, because a missing or forbidden exchange closes the channel (docs/rabbitmq.md#t18). Nothing is
retried here: after RabbitAway the caller publishes again.
"""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import replace

from aiormq.exceptions import ConnectionInternalError

from broker.errors import RabbitAway
from broker.rabbitmq.connection import (
    Backoff,
    Connection,
    SupervisedConnection,
    open_channel,
    temporary_connection,
    translate_errors,
)
from broker.rabbitmq.frames import EncodedPublish, PublishTap
from broker.rabbitmq.messages import Outgoing, Published
from broker.rabbitmq.topology import DIRECT_REPLY
from config.sections import RabbitmqSettings

IN_FLIGHT = 1000
"""Unconfirmed publishes per exchange. Further publishes wait, within their publish timeout."""
# How RabbitMQ (3.10 to 4.x) writes a process into a direct reply-to address: in base64, Erlang's external term format
# with the length of a name, a name for the node, and three numbers.
PROCESS_HEAD = re.compile(rb"\x83X(?:[dv]\x00|w)(.)", re.DOTALL)
PROCESS_NODE = re.compile(rb"reply@\d{1,10}")
PROCESS_TAIL_BYTES = 12


class ExchangePublisher:
    """Publishes to one exchange, many messages at a time, over the current connection."""

    def __init__(self, connection: SupervisedConnection, settings: RabbitmqSettings) -> None:
        self._connection = connection
        self._backoff = Backoff(settings)
        self._timeout = settings.publish_timeout_seconds
        self._window = asyncio.Semaphore(IN_FLIGHT)
        self._opening = asyncio.Lock()
        self._channel: PublishTap | None = None
        self._channel_works = False  # a publish on it was answered, so the exchange exists
        self.waiting = 0

    async def publish(self, out: Outgoing) -> Published:
        """Publish and return RabbitMQ's answer. Raises RabbitAway, or ValueError or TypeError as `encode`."""
        message = encode(out)
        self.waiting += 1
        try:
            channel = self._channel
            if channel is not None and self._channel_works and channel.usable and not self._window.locked():
                async with self._window:
                    return await channel.publish(message, within=self._timeout)
            with translate_errors("publishing"):
                async with asyncio.timeout(self._timeout), self._window:
                    return await self._send(message)
        finally:
            self.waiting -= 1

    async def _send(self, message: EncodedPublish) -> Published:
        connection = await self._connection.current()
        # Not while an alarm blocks it: the message would arrive after its timeout (docs/rabbitmq.md#t6).
        await connection.ready()
        if (channel := self._working_channel(connection)) is None:
            async with self._opening:
                if (channel := self._working_channel(connection)) is None:
                    return await self._send_first(connection, message)
        return await channel.publish(message, within=self._timeout)

    def _working_channel(self, connection: Connection) -> PublishTap | None:
        channel = self._channel
        if channel is None or not self._channel_works or channel.is_closed:
            return None
        return channel if channel.connection is connection else None

    async def _send_first(self, connection: Connection, message: EncodedPublish) -> Published:
        """The first publish on a channel, with no other beside it.

        For a missing or forbidden exchange RabbitMQ closes the channel. Further frames on it would make RabbitMQ close
        the connection, with all publishes on it (docs/rabbitmq.md#t18).
        """
        if self._channel is None or self._channel.is_closed or self._channel.connection is not connection:
            if self._channel and self._channel.connection is connection:
                # RabbitMQ closed only this channel and may do so again.
                await self._backoff.pause()
            self._channel_works = False
            self._channel = PublishTap(await open_channel(connection, confirms=True))
        published = await self._channel.publish(message, within=self._timeout)
        self._channel_works = True
        self._backoff.reset()
        return published


def encode(out: Outgoing) -> EncodedPublish:
    """Encode a message; never mandatory for direct reply-to. Raises ValueError or TypeError if AMQP cannot carry it."""
    # RabbitMQ reports NO_ROUTE for mandatory direct replies that arrive (docs/rabbitmq.md#t9).
    return EncodedPublish.of(replace(out, mandatory=False) if out.mandatory and is_direct_reply(out) else out)


def is_direct_reply(out: Outgoing) -> bool:
    """Whether it is an answer through direct reply-to, which has no queue."""
    return out.exchange == "" and out.routing_key.startswith(DIRECT_REPLY)


def is_forged(out: Outgoing) -> bool:
    """Whether it is for a direct reply-to address of a form that RabbitMQ does not write (docs/rabbitmq.md#t10)."""
    if not is_direct_reply(out):
        return False
    process, _, key = out.routing_key.removeprefix(DIRECT_REPLY).partition(".")
    try:
        decoded = base64.b64decode(process, validate=True)
    except ValueError:
        return True
    return "." in key or not is_process(decoded)


def is_process(decoded: bytes) -> bool:
    """Whether it has the form in which RabbitMQ names the process behind a direct reply-to address."""
    head = PROCESS_HEAD.match(decoded)
    if head is None:
        return False
    end = head.end() + head[1][0]
    node, tail = decoded[head.end() : end], decoded[end:]
    return PROCESS_NODE.fullmatch(node) is not None and len(tail) == PROCESS_TAIL_BYTES


async def publish_on_own_connection(
    settings: RabbitmqSettings, name: str, lock: asyncio.Semaphore, out: Outgoing
) -> Published:
    """Publish on a temporary connection: some forged addresses make RabbitMQ close it (docs/rabbitmq.md#t10).

    An address that does so has no listener: UNROUTABLE. Raises RabbitAway.
    """
    message = encode(out)
    try:
        with translate_errors("publishing alone"):
            async with (
                asyncio.timeout(settings.publish_timeout_seconds),
                lock,
                temporary_connection(settings.url.get_secret_value(), name) as connection,
            ):
                return await PublishTap(await open_channel(connection, confirms=True)).publish(
                    message, within=settings.publish_timeout_seconds
                )
    except RabbitAway as error:
        if isinstance(error.__cause__, ConnectionInternalError):
            return Published.UNROUTABLE
        raise
