"""The frames that come by the thousand: publishes with their confirms, arrivals with their acknowledgements.

Written and read here past the library, on channels that it opened and will close (see `stream.py`). What is not one
of these frames is left to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any
from uuid import uuid4

from aiormq.abc import AbstractChannel, AbstractConnection
from pamqp import encode
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broker.errors import RabbitAway
from broker.rabbitmq.messages import Outgoing, Published
from broker.rabbitmq.transport import HEAD, OVERHEAD, stream_of

METHOD, HEADER, BODY = 1, 2, 3
END = b"\xce"
RETURN, DELIVER, ACK, NACK = (
    b"\x00\x3c\x00\x32",
    b"\x00\x3c\x00\x3c",
    b"\x00\x3c\x00\x50",
    b"\x00\x3c\x00\x78",
)
PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
CONFIRM = Struct(">4xQB")
ACKNOWLEDGE = Struct(">BHI4sQBB")
HEADER_START = Struct(">BHIHHQH")
MAX_SHORT_STRING = 255
NO_MORE = "the channel was lost"
SWEEP_S = 0.25
"""How late a timeout may be noticed."""
APP_ID_NAME = "jobnet-broker"

# The flags of the properties that we write, in the order in which they are written (AMQP 0-9-1, class basic).
CONTENT_TYPE, HEADERS, DELIVERY_MODE, CORRELATION_ID = 1 << 15, 1 << 13, 1 << 12, 1 << 10
REPLY_TO, MESSAGE_ID, TIMESTAMP, TYPE, APP_ID = 1 << 9, 1 << 7, 1 << 6, 1 << 5, 1 << 3
LONG = Struct(">Q")


def short_string(text: str) -> bytes:
    """A string of at most 255 bytes with its length. Raises ValueError."""
    data = text.encode()
    if len(data) > MAX_SHORT_STRING:
        raise ValueError("a property, routing key or exchange name of more than 255 bytes")
    return bytes((len(data),)) + data


WE = short_string(APP_ID_NAME)
AmqpProperties = tuple[int, bytes]
"""Flags and values, as they are written."""


@dataclass(frozen=True, slots=True)
class EncodedPublish:
    """A message as AMQP carries it. `message_id` is no other publish's: two equal ones in flight would swap their
    outcomes (rabbitmq.md 1, #5)."""

    message_id: str
    method: bytes
    properties: AmqpProperties
    body: bytes

    @classmethod
    def of(cls, out: Outgoing) -> EncodedPublish:
        """Raises ValueError or TypeError for what cannot be encoded, here and not half-way through a channel."""
        message_id = str(uuid4())
        mandatory = b"\x01" if out.mandatory else b"\x00"
        method = PUBLISH + short_string(out.exchange) + short_string(out.routing_key) + mandatory
        return cls(message_id, method, amqp_properties(out, message_id), out.body)


def amqp_properties(out: Outgoing, message_id: str) -> AmqpProperties:
    """In the order that the protocol wants. Raises ValueError or TypeError."""
    flags, parts = DELIVERY_MODE | MESSAGE_ID | TIMESTAMP | APP_ID, []
    if out.content_type is not None:
        flags |= CONTENT_TYPE
        parts.append(short_string(out.content_type))
    if out.headers:
        flags |= HEADERS
        parts.append(encode.field_table(dict(out.headers)))
    parts.append(b"\x02" if out.persistent else b"\x01")
    if out.correlation_id is not None:
        flags |= CORRELATION_ID
        parts.append(short_string(out.correlation_id))
    if out.reply_to is not None:
        flags |= REPLY_TO
        parts.append(short_string(out.reply_to))
    parts += (short_string(message_id), LONG.pack(int(time.time())))
    if out.type is not None:
        flags |= TYPE
        parts.append(short_string(out.type))
    parts.append(WE)
    return flags, b"".join(parts)


class ChannelTap:
    """What both directions share: a channel of the library whose busy frames are ours until it closes."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self._number = channel.number
        self._stream = stream_of(channel.connection)
        self._stream.register(self._number, self)
        channel.closing.add_done_callback(self._closed)

    def take(self, kind: int, frame: bytes) -> bool:
        raise NotImplementedError

    def _closed(self, closing: asyncio.Future[Any]) -> None:
        self._stream.forget(self._number, self)

    @property
    def is_closed(self) -> bool:
        return self.channel.is_closed

    @property
    def connection(self) -> AbstractConnection:
        return self.channel.connection


class PublishTap(ChannelTap):
    """Publishes on a channel in confirm mode. Nobody else may publish on it: the confirms are counted here."""

    def __init__(self, channel: AbstractChannel) -> None:
        super().__init__(channel)
        self._most: int = channel.connection.connection_tune.frame_max - OVERHEAD
        self._sent = 0
        self._loop = asyncio.get_running_loop()
        self._sweeping: asyncio.TimerHandle | None = None
        # By number, in their order, with the time until which they may take.
        self._waiting: dict[int, tuple[asyncio.Future[Published], float]] = {}
        self._numbers: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self._returning = 0  # bytes of a returned message that are still to come
        self._headed = True  # whether its content header has come

    @property
    def usable(self) -> bool:
        """Open, and no alarm says that what is sent now arrives after it was given up."""
        return not (self.channel.is_closed or self._stream.blocked)

    def publish(self, ready: EncodedPublish, *, within: float) -> asyncio.Future[Published]:
        """Sent when this returns; the future is RabbitMQ's word, or RabbitAway after `within` seconds without one.

        Raises RabbitAway; then nothing was sent.
        """
        if self.channel.is_closed:
            raise RabbitAway(NO_MORE)
        self._stream.write(self._frames(ready))
        self._sent += 1
        future: asyncio.Future[Published] = self._loop.create_future()
        self._waiting[self._sent] = future, self._loop.time() + within
        self._numbers[ready.message_id] = self._sent
        self._ids[self._sent] = ready.message_id
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)
        return future

    def _sweep(self) -> None:
        """One timer for all that wait: one for each would cost as much as the publish."""
        now = self._loop.time()
        for future, until in self._waiting.values():
            if until <= now and not future.done():
                future.set_exception(RabbitAway("publishing: no answer in time"))
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep) if self._waiting else None

    def _frames(self, ready: EncodedPublish) -> bytes:
        method, body, (flags, values) = ready.method, ready.body, ready.properties
        head = HEADER_START.pack(HEADER, self._number, 14 + len(values), 60, 0, len(body), flags)
        parts = [HEAD.pack(METHOD, self._number, len(method)), method, END, head, values, END]
        for at in range(0, len(body), self._most):
            part = body[at : at + self._most]
            parts += (HEAD.pack(BODY, self._number, len(part)), part, END)
        return b"".join(parts)

    def take(self, kind: int, frame: bytes) -> bool:
        """Confirms and returns; a returned message's content is dropped, but for its id."""
        if kind == METHOD:
            name = frame[:4]
            if name in (ACK, NACK):
                number, bits = CONFIRM.unpack_from(frame)
                self._confirmed(
                    number, bool(bits & 1), Published.CONFIRMED if name == ACK else Published.REFUSED
                )
                return True
            if name == RETURN:
                self._headed = False
            return name == RETURN
        if kind == HEADER and not self._headed:
            self._headed = True
            header = ContentHeader()
            header.unmarshal(frame)
            self._returning = header.body_size or 0
            self._returned(header.properties.message_id)
            return True
        if kind == BODY and self._returning > 0:
            self._returning -= len(frame)
            return True
        return False

    def _returned(self, message_id: str | None) -> None:
        number = self._numbers.get(message_id or "")
        if number is not None and not (future := self._waiting[number][0]).done():
            future.set_result(Published.UNROUTABLE)  # its Ack follows, and says nothing

    def _confirmed(self, number: int, all_before: bool, said: Published) -> None:
        if not all_before:
            self._tell(number, said)
            return
        while self._waiting and (first := next(iter(self._waiting))) <= number:
            self._tell(first, said)

    def _tell(self, number: int, said: Published) -> None:
        waiting = self._waiting.pop(number, None)
        self._numbers.pop(self._ids.pop(number, ""), None)
        if waiting is not None and not waiting[0].done():  # its publisher may have stopped waiting
            waiting[0].set_result(said)

    def _closed(self, closing: asyncio.Future[Any]) -> None:
        super()._closed(closing)
        reason = None if closing.cancelled() else closing.exception()
        if self._sweeping is not None:
            self._sweeping.cancel()
        for future, _ in self._waiting.values():
            if not future.done():
                away = RabbitAway(f"{NO_MORE}: {type(reason).__name__} {reason!s:.200}")
                away.__cause__ = reason
                future.set_exception(away)
                future.exception()  # whoever waited may be gone
        self._waiting.clear()
        self._numbers.clear()
        self._ids.clear()


OnDelivered = Callable[["ConsumeTap", int, bool, Basic.Properties, bytes], None]
"""(the channel, delivery tag, redelivered, properties, body); it must not raise."""


class ConsumeTap(ChannelTap):
    """Arrivals on a channel, in the order they came, with the right to acknowledge them."""

    def __init__(self, channel: AbstractChannel, on_delivered: OnDelivered) -> None:
        super().__init__(channel)
        self._on_delivered = on_delivered
        self._tag, self._redelivered = 0, False
        self._header: ContentHeader | None = None
        self._parts: list[bytes] = []
        self._missing = 0
        self._under_way = False

    def take(self, kind: int, frame: bytes) -> bool:
        """Delivered messages, from their method to the last piece of their body."""
        if kind == METHOD and frame[:4] == DELIVER:
            at = 5 + frame[4]  # after the consumer's tag
            self._tag, bits = LONG.unpack_from(frame, at)[0], frame[at + 8]
            self._redelivered, self._under_way = bool(bits & 1), True
            return True
        if not self._under_way or kind == METHOD:
            return False
        if kind == HEADER:
            header = ContentHeader()
            header.unmarshal(frame)
            self._header, self._missing, self._parts = header, header.body_size or 0, []
        else:
            self._parts.append(frame)
            self._missing -= len(frame)
        if self._missing <= 0 and self._header is not None:
            self._complete(self._header)
        return True

    def _complete(self, header: ContentHeader) -> None:
        body, self._parts, self._header, self._under_way = b"".join(self._parts), [], None, False
        self._on_delivered(self, self._tag, self._redelivered, header.properties, body)

    async def basic_ack(self, delivery_tag: int, multiple: bool = False, wait: bool = False) -> None:
        """As the library's. Raises RabbitAway. Never twice for one tag: RabbitMQ would close the channel."""
        if self.channel.is_closed:
            raise RabbitAway(NO_MORE)
        self._stream.write(ACKNOWLEDGE.pack(METHOD, self._number, 13, ACK, delivery_tag, multiple, 0xCE))
