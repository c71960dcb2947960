"""The frequent frames: publishes with their confirms, arrivals with their acknowledgements.

They are written and read here instead of in the library, on channels that the library opened and will close; see
transport.py. All other frames are left to the library.
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
from broker.rabbitmq.properties import RAW_BYTES
from broker.rabbitmq.transport import HEAD, OVERHEAD, transport_of

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
CHANNEL_LOST = "the channel was lost"
SWEEP_S = 0.25
"""How often publishes are checked for their timeout, in seconds."""
APP_ID_NAME = "jobnet-broker"

# The flags of the properties that are written, in their order on the wire (AMQP 0-9-1, class basic).
CONTENT_TYPE, HEADERS, DELIVERY_MODE, CORRELATION_ID = 1 << 15, 1 << 13, 1 << 12, 1 << 10
REPLY_TO, MESSAGE_ID, TIMESTAMP, TYPE, APP_ID = 1 << 9, 1 << 7, 1 << 6, 1 << 5, 1 << 3
LONG = Struct(">Q")


def short_string(text: str, errors: str = "strict") -> bytes:
    """A string of at most 255 bytes with its length. Raises ValueError."""
    data = text.encode("utf-8", errors)
    if len(data) > MAX_SHORT_STRING:
        raise ValueError("a property, routing key or exchange name of more than 255 bytes")
    return bytes((len(data),)) + data


APP_ID_VALUE = short_string(APP_ID_NAME)
AmqpProperties = tuple[int, bytes]
"""Flags and encoded values."""


@dataclass(frozen=True, slots=True)
class EncodedPublish:
    """A publish as AMQP bytes, with a new `message_id` for each."""

    message_id: str
    method: bytes
    properties: AmqpProperties
    body: bytes

    @classmethod
    def of(cls, out: Outgoing) -> EncodedPublish:
        """Encode a message. Raises ValueError or TypeError for one that AMQP cannot carry, before anything is sent."""
        # Two publishes in flight with the same id would swap their outcomes (docs/rabbitmq.md#t5).
        message_id = str(uuid4())
        mandatory = b"\x01" if out.mandatory else b"\x00"
        method = PUBLISH + short_string(out.exchange) + short_string(out.routing_key) + mandatory
        return cls(message_id, method, amqp_properties(out, message_id), out.body)


def amqp_properties(out: Outgoing, message_id: str) -> AmqpProperties:
    """The properties of a message, in the order of the protocol. Raises ValueError or TypeError."""
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
        parts.append(short_string(out.correlation_id, RAW_BYTES))
    if out.reply_to is not None:
        flags |= REPLY_TO
        parts.append(short_string(out.reply_to))
    parts += (short_string(message_id), LONG.pack(int(time.time())))
    if out.type is not None:
        flags |= TYPE
        parts.append(short_string(out.type))
    parts.append(APP_ID_VALUE)
    return flags, b"".join(parts)


class ChannelTap:
    """Base of both directions: handles the frequent frames of one of the library's channels until it closes."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self._number = channel.number
        self._transport = transport_of(channel.connection)
        self._transport.register(self._number, self)
        channel.closing.add_done_callback(self._closed)

    def handle(self, kind: int, frame: bytes) -> bool:
        raise NotImplementedError

    def _closed(self, closing: asyncio.Future[Any]) -> None:
        self._transport.forget(self._number, self)

    @property
    def is_closed(self) -> bool:
        return self.channel.is_closed

    @property
    def connection(self) -> AbstractConnection:
        return self.channel.connection


class PublishTap(ChannelTap):
    """Publishes on a channel in confirm mode. It must be the only publisher there: it counts the confirms."""

    def __init__(self, channel: AbstractChannel) -> None:
        super().__init__(channel)
        self._max_body: int = channel.connection.connection_tune.frame_max - OVERHEAD
        self._sent = 0
        self._loop = asyncio.get_running_loop()
        self._sweeping: asyncio.TimerHandle | None = None
        # By publish number, in their order, with the deadline of each.
        self._waiting: dict[int, tuple[asyncio.Future[Published], float]] = {}
        self._numbers: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self._returned_bytes = 0  # of a returned message, still to come
        self._header_seen = True  # of a returned message

    @property
    def usable(self) -> bool:
        """Open, and not blocked by an alarm, under which a publish arrives after its timeout (docs/rabbitmq.md#t6)."""
        return not (self.channel.is_closed or self._transport.blocked)

    def publish(self, message: EncodedPublish, *, within: float) -> asyncio.Future[Published]:
        """Send now; the future is RabbitMQ's answer, or RabbitAway after `within` seconds without one.

        Raises RabbitAway if nothing was sent.
        """
        if self.channel.is_closed:
            raise RabbitAway(CHANNEL_LOST)
        self._transport.write(self._frames(message))
        self._sent += 1
        future: asyncio.Future[Published] = self._loop.create_future()
        self._waiting[self._sent] = future, self._loop.time() + within
        self._numbers[message.message_id] = self._sent
        self._ids[self._sent] = message.message_id
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)
        return future

    def _sweep(self) -> None:
        """Time out publishes without an answer."""
        # One timer for all: a timer for each would cost as much as the publish.
        now = self._loop.time()
        for future, deadline in self._waiting.values():
            if deadline <= now and not future.done():
                future.set_exception(RabbitAway("publishing: no answer in time"))
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep) if self._waiting else None

    def _frames(self, message: EncodedPublish) -> bytes:
        method, body, (flags, values) = message.method, message.body, message.properties
        head = HEADER_START.pack(HEADER, self._number, 14 + len(values), 60, 0, len(body), flags)
        parts = [HEAD.pack(METHOD, self._number, len(method)), method, END, head, values, END]
        for at in range(0, len(body), self._max_body):
            part = body[at : at + self._max_body]
            parts += (HEAD.pack(BODY, self._number, len(part)), part, END)
        return b"".join(parts)

    def handle(self, kind: int, frame: bytes) -> bool:
        """Handle confirms and returns. Of a returned message only the id is used."""
        if kind == METHOD:
            name = frame[:4]
            if name in (ACK, NACK):
                number, bits = CONFIRM.unpack_from(frame)
                self._confirmed(
                    number, bool(bits & 1), Published.CONFIRMED if name == ACK else Published.REFUSED
                )
                return True
            if name == RETURN:
                self._header_seen = False
            return name == RETURN
        if kind == HEADER and not self._header_seen:
            self._header_seen = True
            header = ContentHeader()
            header.unmarshal(frame)
            self._returned_bytes = header.body_size or 0
            self._returned(header.properties.message_id)
            return True
        if kind == BODY and self._returned_bytes > 0:
            self._returned_bytes -= len(frame)
            return True
        return False

    def _returned(self, message_id: str | None) -> None:
        number = self._numbers.get(message_id or "")
        if number is not None and not (future := self._waiting[number][0]).done():
            future.set_result(Published.UNROUTABLE)  # the Ack that follows is ignored

    def _confirmed(self, number: int, all_before: bool, outcome: Published) -> None:
        if not all_before:
            self._resolve(number, outcome)
            return
        while self._waiting and (first := next(iter(self._waiting))) <= number:
            self._resolve(first, outcome)

    def _resolve(self, number: int, outcome: Published) -> None:
        waiting = self._waiting.pop(number, None)
        self._numbers.pop(self._ids.pop(number, ""), None)
        if waiting is not None and not waiting[0].done():  # its publisher may have stopped waiting
            waiting[0].set_result(outcome)

    def _closed(self, closing: asyncio.Future[Any]) -> None:
        super()._closed(closing)
        reason = None if closing.cancelled() else closing.exception()
        if self._sweeping is not None:
            self._sweeping.cancel()
        for future, _ in self._waiting.values():
            if not future.done():
                away = RabbitAway(f"{CHANNEL_LOST}: {type(reason).__name__} {reason!s:.200}")
                away.__cause__ = reason
                future.set_exception(away)
                future.exception()  # marks it as seen: its publisher may have stopped waiting
        self._waiting.clear()
        self._numbers.clear()
        self._ids.clear()


OnDelivered = Callable[["ConsumeTap", int, bool, Basic.Properties, bytes], None]
"""(the tap, delivery tag, redelivered, properties, body). It must not raise."""


class ConsumeTap(ChannelTap):
    """Arrivals on a channel, in their order, and their acknowledgements."""

    def __init__(self, channel: AbstractChannel, on_delivered: OnDelivered) -> None:
        super().__init__(channel)
        self._on_delivered = on_delivered
        self._tag, self._redelivered = 0, False
        self._header: ContentHeader | None = None
        self._parts: list[bytes] = []
        self._missing_bytes = 0
        self._in_message = False

    def handle(self, kind: int, frame: bytes) -> bool:
        """Handle the frames of a delivered message, from its method to the last part of its body."""
        if kind == METHOD and frame[:4] == DELIVER:
            at = 5 + frame[4]  # after the consumer's tag
            self._tag, bits = LONG.unpack_from(frame, at)[0], frame[at + 8]
            self._redelivered, self._in_message = bool(bits & 1), True
            return True
        if not self._in_message or kind == METHOD:
            return False
        if kind == HEADER:
            header = ContentHeader()
            header.unmarshal(frame)
            self._header, self._missing_bytes, self._parts = header, header.body_size or 0, []
        else:
            self._parts.append(frame)
            self._missing_bytes -= len(frame)
        if self._missing_bytes <= 0 and self._header is not None:
            self._complete(self._header)
        return True

    def _complete(self, header: ContentHeader) -> None:
        body, self._parts, self._header, self._in_message = b"".join(self._parts), [], None, False
        self._on_delivered(self, self._tag, self._redelivered, header.properties, body)

    async def basic_ack(self, delivery_tag: int, multiple: bool = False, wait: bool = False) -> None:
        """Acknowledge, as the library's method. Raises RabbitAway. Must not be called twice for one tag."""
        if self.channel.is_closed:
            raise RabbitAway(CHANNEL_LOST)
        self._transport.write(ACKNOWLEDGE.pack(METHOD, self._number, 13, ACK, delivery_tag, multiple, 0xCE))
