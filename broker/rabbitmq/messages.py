"""What crosses the door to RabbitMQ: an arrival, what we publish, and what became of that.

Nothing here talks to a server but the acknowledgement; nothing is judged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from pamqp.commands import Basic


class Published(Enum):
    """What RabbitMQ said about a publish."""

    CONFIRMED = "confirmed"
    UNROUTABLE = "unroutable"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish. `headers` may hold strings, numbers, booleans. Id and time are added."""

    exchange: str
    routing_key: str = field(repr=False)
    body: bytes = field(repr=False)
    type: str | None = None
    correlation_id: str | None = field(default=None, repr=False)
    headers: Mapping[str, Any] = field(default_factory=dict, repr=False)
    reply_to: str | None = field(default=None, repr=False)
    mandatory: bool = True
    persistent: bool = True
    content_type: str | None = "application/json"


class AckChannel(Protocol):
    """The part of a channel that an arrival needs."""

    @property
    def is_closed(self) -> bool: ...

    def basic_ack(self, delivery_tag: int, multiple: bool = ..., wait: bool = ...) -> Awaitable[None]: ...


class AckToken:
    """The right to acknowledge one arrival, once, on the channel that it came on."""

    __slots__ = ("_channel", "_tag")

    def __init__(self, channel: AckChannel, tag: int) -> None:
        self._channel: AckChannel | None = channel
        self._tag = tag

    @property
    def void(self) -> bool:
        """Used, or its channel is gone."""
        return self._channel is None or self._channel.is_closed

    async def use(self) -> bool:
        """Acknowledge. Never twice: for a tag that it does not know RabbitMQ closes the channel."""
        channel, self._channel = self._channel, None
        if channel is None or channel.is_closed:
            return False
        with suppress(Exception):  # the channel went away meanwhile; the redelivery publishes again
            await channel.basic_ack(self._tag, wait=False)
            return True
        return False


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """One arrival of a message. All but `queue`, `redelivered` and `delivery_count` is a stranger's word.

    `delivery_count` is what the quorum queue counted: 0 for a first delivery, whatever a header claims.
    """

    queue: str
    body: bytes = field(default=b"", repr=False)
    type: str | None = field(default=None, repr=False)
    content_type: str | None = field(default=None, repr=False)
    message_id: str | None = field(default=None, repr=False)
    correlation_id: str | None = field(default=None, repr=False)
    reply_to: str | None = field(default=None, repr=False)
    headers: Mapping[str, Any] = field(default_factory=dict, repr=False)
    redelivered: bool = False
    delivery_count: int = 0
    receipt: AckToken | None = field(default=None, repr=False)

    async def ack(self) -> bool:
        """False when the channel it came on is gone: the message comes again. Never raises."""
        return self.receipt is not None and await self.receipt.use()

    @property
    def lost(self) -> bool:
        """It can no longer be acknowledged: done already, or its channel is gone."""
        return self.receipt is None or self.receipt.void


def read_arrival(
    queue: str, body: bytes, properties: Basic.Properties, redelivered: bool, receipt: AckToken
) -> Arrival:
    """An arrival from what the library decoded; empty strings count as missing."""
    headers = properties.headers if isinstance(properties.headers, dict) else {}
    return Arrival(
        queue=queue,
        body=body,
        type=properties.message_type or None,
        content_type=properties.content_type or None,
        message_id=properties.message_id or None,
        correlation_id=properties.correlation_id or None,
        reply_to=properties.reply_to or None,
        headers=headers,
        redelivered=redelivered,
        delivery_count=_count(headers.get("x-delivery-count")) if redelivered else 0,
        receipt=receipt,
    )


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 0
