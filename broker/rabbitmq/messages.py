"""Messages from and to RabbitMQ as data: an arrival, an outgoing message, and the result of a publish.

Only the acknowledgement talks to a server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from pamqp.commands import Basic


class Published(Enum):
    """RabbitMQ's answer to a publish."""

    CONFIRMED = "confirmed"
    UNROUTABLE = "unroutable"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish. `headers` may hold strings, numbers and booleans. Message id and time are added."""

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
    """The part of a channel that an acknowledgement needs."""

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
        """Used already, or its channel is closed."""
        return self._channel is None or self._channel.is_closed

    async def use(self) -> bool:
        """Acknowledge, at most once; whether the acknowledgement was sent. Never raises."""
        # A second one would name a tag that RabbitMQ does not know: it closes the channel (docs/rabbitmq.md#t16).
        channel, self._channel = self._channel, None
        if channel is None or channel.is_closed:
            return False
        with suppress(Exception):  # the channel was closed meanwhile: the message is redelivered
            await channel.basic_ack(self._tag, wait=False)
            return True
        return False


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """One arrival of a message. Only `queue`, `redelivered` and `delivery_count` are RabbitMQ's own; all else is the
    sender's and not trusted.

    `correlation_id` may hold surrogates, which stand for bytes that are not UTF-8 (properties.py).
    `delivery_count` is counted by the quorum queue; 0 for a first delivery, whatever the sender's header says.
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
    ack_token: AckToken | None = field(default=None, repr=False)

    async def ack(self) -> bool:
        """Acknowledge. False when the channel is closed and the message will be redelivered. Never raises."""
        return self.ack_token is not None and await self.ack_token.use()

    @property
    def lost(self) -> bool:
        """It can no longer be acknowledged: this was done, or its channel is closed."""
        return self.ack_token is None or self.ack_token.void


def read_arrival(
    queue: str, body: bytes, properties: Basic.Properties, redelivered: bool, ack_token: AckToken
) -> Arrival:
    """An arrival from the library's decoded properties. Empty strings count as missing, except a correlation id."""
    headers = properties.headers if isinstance(properties.headers, dict) else {}
    return Arrival(
        queue=queue,
        body=body,
        type=properties.message_type or None,
        content_type=properties.content_type or None,
        message_id=properties.message_id or None,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to or None,
        headers=headers,
        redelivered=redelivered,
        delivery_count=_count(headers.get("x-delivery-count")) if redelivered else 0,
        ack_token=ack_token,
    )


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 0
