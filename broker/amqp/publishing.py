"""Confirmed publishing: every publish has a timeout, and ends confirmed, unroutable, refused, or RabbitAway.

One channel per exchange, because a missing or forbidden exchange closes the channel for all who use it.
Nothing is repeated here: what has an unknown fate is for the caller to repeat.
"""

from __future__ import annotations

import asyncio
import base64
import re
from datetime import UTC, datetime
from uuid import uuid4

from aiormq.exceptions import ConnectionInternalError, DeliveryError, PublishError
from pamqp.commands import Basic

from broker.amqp.arrivals import Outgoing, Published
from broker.amqp.connection import Backoff, Channel, Link, connected, open_channel, translated
from broker.errors import RabbitAway
from broker.topology import DIRECT_REPLY
from config.settings import RabbitmqSettings

APP_ID = "jobnet-broker"
IN_FLIGHT = 1000
"""Unconfirmed publishes per exchange; more of them wait their turn inside the publish timeout."""
DIRECT_ADDRESS = re.compile(rb"\x83X(?:[dv]\x00.|w.)reply@\d{1,10}.{12}", re.DOTALL)
"""The process that RabbitMQ writes, in base64, into an address of direct reply-to (3.10 to 4.x)."""
MAX_SHORT_STRING = 255


class Outlet:
    """Publishing to one exchange, many at a time, over whatever connection is current."""

    def __init__(self, link: Link, settings: RabbitmqSettings) -> None:
        self._link = link
        self._backoff = Backoff(settings)
        self._timeout = settings.publish_timeout_seconds
        self._window = asyncio.Semaphore(IN_FLIGHT)
        self._opening = asyncio.Lock()
        self._channel: Channel | None = None
        self.waiting = 0

    async def publish(self, out: Outgoing) -> Published:
        """Raises RabbitAway, or ValueError for what AMQP cannot carry."""
        properties = properties_of(out)
        self.waiting += 1
        try:
            with translated("publishing"):
                async with asyncio.timeout(self._timeout), self._window:
                    result = await confirmed(await self._open(), out, properties)
        finally:
            self.waiting -= 1
        self._backoff.reset()
        return result

    async def _open(self) -> Channel:
        raw = await self._link.raw()
        await raw.ready()  # not while an alarm blocks it: what is sent then arrives after it was given up
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                if self._channel and self._channel.connection is raw:
                    await self._backoff.pause()  # the server closed this channel alone, and may do it again
                self._channel = await open_channel(raw, confirms=True)
            return self._channel


async def confirmed(channel: Channel, out: Outgoing, properties: Basic.Properties) -> Published:
    """Publish and wait for RabbitMQ's word."""
    try:
        await channel.basic_publish(
            out.body,
            exchange=out.exchange,
            routing_key=out.routing_key,
            properties=properties,
            mandatory=out.mandatory and not is_direct(out),  # there NO_ROUTE is said of what arrives
        )
    except PublishError:
        return Published.UNROUTABLE
    except DeliveryError:
        return Published.REFUSED
    return Published.CONFIRMED


def properties_of(out: Outgoing) -> Basic.Properties:
    """With an id that no other publish has: two equal ones in flight swap their outcomes (rabbitmq.md 1, #5).

    Raises ValueError or TypeError for what cannot be encoded, here and not half-way through a channel.
    """
    properties = Basic.Properties(
        content_type=out.content_type,
        headers=dict(out.headers) or None,
        delivery_mode=2 if out.persistent else 1,
        correlation_id=out.correlation_id,
        reply_to=out.reply_to,
        message_id=str(uuid4()),
        timestamp=datetime.now(UTC),
        message_type=out.type,
        app_id=APP_ID,
    )
    properties.marshal()
    if max(len(out.routing_key.encode()), len(out.exchange.encode())) > MAX_SHORT_STRING:
        raise ValueError("a routing key or exchange name of more than 255 bytes")
    return properties


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
    return "." in key or DIRECT_ADDRESS.fullmatch(decoded) is None


async def publish_alone(
    settings: RabbitmqSettings, name: str, turn: asyncio.Semaphore, out: Outgoing
) -> Published:
    """On a connection of its own: some forged addresses make RabbitMQ (3.10.8) close the whole connection.

    An address that does that has no listener: UNROUTABLE. Raises RabbitAway.
    """
    properties = properties_of(out)
    try:
        with translated("publishing alone"):
            async with (
                asyncio.timeout(settings.publish_timeout_seconds),
                turn,
                connected(settings.url.get_secret_value(), name) as raw,
            ):
                return await confirmed(await open_channel(raw, confirms=True), out, properties)
    except RabbitAway as error:
        if isinstance(error.__cause__, ConnectionInternalError):
            return Published.UNROUTABLE
        raise
