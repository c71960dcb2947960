"""Confirmed publishing: every publish has a timeout, and ends confirmed, unroutable, refused, or RabbitAway.

One channel per exchange, because a missing or forbidden exchange closes the channel for all who use it.
Nothing is repeated here: what has an unknown fate is for the caller to repeat.
"""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import replace

from aiormq.exceptions import ConnectionInternalError

from broker.errors import RabbitAway
from broker.rabbitmq.connection import Backoff, Connection, Link, connected, open_channel, translated
from broker.rabbitmq.frames import EncodedPublish, PublishTap
from broker.rabbitmq.messages import Outgoing, Published
from broker.rabbitmq.topology import DIRECT_REPLY
from config.sections import RabbitmqSettings

IN_FLIGHT = 1000
"""Unconfirmed publishes per exchange; more of them wait their turn inside the publish timeout."""
PROCESS_HEAD = re.compile(rb"\x83X(?:[dv]\x00|w)(.)", re.DOTALL)
PROCESS_NODE = re.compile(rb"reply@\d{1,10}")
PROCESS_TAIL_BYTES = 12
"""How RabbitMQ (3.10 to 4.x) writes a process, in base64, into a direct reply-to address: Erlang's external
format, with the length of a name, a name that stands for the node, and three numbers."""


class ExchangePublisher:
    """Publishing to one exchange, many at a time, over whatever connection is current."""

    def __init__(self, link: Link, settings: RabbitmqSettings) -> None:
        self._link = link
        self._backoff = Backoff(settings)
        self._timeout = settings.publish_timeout_seconds
        self._window = asyncio.Semaphore(IN_FLIGHT)
        self._opening = asyncio.Lock()
        self._channel: PublishTap | None = None
        self._proven = False
        self.waiting = 0

    async def publish(self, out: Outgoing) -> Published:
        """Raises RabbitAway, or ValueError for what AMQP cannot carry."""
        ready = ready_of(out)
        self.waiting += 1
        try:
            channel = self._channel
            if channel is not None and self._proven and channel.usable and not self._window.locked():
                async with self._window:
                    return await channel.publish(ready, within=self._timeout)
            with translated("publishing"):
                async with asyncio.timeout(self._timeout), self._window:
                    return await self._send(ready)
        finally:
            self.waiting -= 1

    async def _send(self, ready: EncodedPublish) -> Published:
        raw = await self._link.raw()
        await raw.ready()  # not while an alarm blocks it: what is sent then arrives after it was given up
        if (channel := self._proven_on(raw)) is None:
            async with self._opening:
                if (channel := self._proven_on(raw)) is None:
                    return await self._send_first(raw, ready)
        return await channel.publish(ready, within=self._timeout)

    def _proven_on(self, raw: Connection) -> PublishTap | None:
        channel = self._channel
        usable = channel is not None and self._proven and not channel.is_closed and channel.connection is raw
        return channel if usable else None

    async def _send_first(self, raw: Connection, ready: EncodedPublish) -> Published:
        """The first publish on a channel goes alone.

        For a missing or forbidden exchange RabbitMQ closes the channel; what is still sent on it then makes
        RabbitMQ close the connection, with everybody's publishes.
        """
        if self._channel is None or self._channel.is_closed or self._channel.connection is not raw:
            if self._channel and self._channel.connection is raw:
                await self._backoff.pause()  # it closed this channel alone, and may do it again
            self._proven = False
            self._channel = PublishTap(await open_channel(raw, confirms=True))
        published = await self._channel.publish(ready, within=self._timeout)
        self._proven = True
        self._backoff.reset()
        return published


def ready_of(out: Outgoing) -> EncodedPublish:
    """Raises ValueError or TypeError for what AMQP cannot carry."""
    # For direct reply-to NO_ROUTE is said of what arrives.
    return EncodedPublish.of(replace(out, mandatory=False) if out.mandatory and is_direct(out) else out)


def is_direct(out: Outgoing) -> bool:
    """An answer through direct reply-to, where no queue exists."""
    return out.exchange == "" and out.routing_key.startswith(DIRECT_REPLY)


def is_forged(out: Outgoing) -> bool:
    """A direct reply-to address that RabbitMQ has not written itself, as far as its form can tell."""
    if not is_direct(out):
        return False
    process, _, key = out.routing_key.removeprefix(DIRECT_REPLY).partition(".")
    try:
        decoded = base64.b64decode(process, validate=True)
    except ValueError:
        return True
    return "." in key or not is_process(decoded)


def is_process(decoded: bytes) -> bool:
    """Of the form in which RabbitMQ names the process behind a direct reply-to."""
    head = PROCESS_HEAD.match(decoded)
    if head is None:
        return False
    end = head.end() + head[1][0]
    node, tail = decoded[head.end() : end], decoded[end:]
    return PROCESS_NODE.fullmatch(node) is not None and len(tail) == PROCESS_TAIL_BYTES


async def publish_alone(
    settings: RabbitmqSettings, name: str, turn: asyncio.Semaphore, out: Outgoing
) -> Published:
    """On a connection of its own: some forged addresses make RabbitMQ (3.10.8) close the whole connection.

    An address that does that has no listener: UNROUTABLE. Raises RabbitAway.
    """
    ready = ready_of(out)
    try:
        with translated("publishing alone"):
            async with (
                asyncio.timeout(settings.publish_timeout_seconds),
                turn,
                connected(settings.url.get_secret_value(), name) as raw,
            ):
                return await PublishTap(await open_channel(raw, confirms=True)).publish(
                    ready, within=settings.publish_timeout_seconds
                )
    except RabbitAway as error:
        if isinstance(error.__cause__, ConnectionInternalError):
            return Published.UNROUTABLE
        raise
