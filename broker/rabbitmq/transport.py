"""The byte stream between aiormq and RabbitMQ, with a bypass of the library for the frequent frames.

aiormq passes a frame through a queue, two tasks and four futures. Here the sink that is registered for a channel (a tap
of frames.py) is given its frames first, in the call that received the bytes, and handles those that it knows. All other
frames go to the library unchanged: handshake, heartbeats, opening and closing of channels, consumers, declarations,
errors. The hooks are the library's transport factory and asyncio's stream reader.
Measured together with frames.py: publish and confirm cost 93 µs of CPU with the library and 27 µs without, an arrival
with its acknowledgement 69 µs and 27 µs (docs/adr/0012-hot-frames-bypass-aiormq.md).
"""

from __future__ import annotations

import asyncio
import time
from struct import Struct
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

import aio_pika
from aio_pika.abc import AbstractConnection as AioPikaConnection
from aiormq.abc import AbstractConnection
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from broker.errors import RabbitAway

HEAD = Struct(">BHI")
"""The start of each frame: kind, channel, size."""
OVERHEAD = HEAD.size + 1
KINDS = frozenset({1, 2, 3, 8})
"""Method, content header, content body, heartbeat."""
MOST_FRAME_BYTES = 1_048_576
"""RabbitMQ announces 131072. A longer frame is not AMQP; the library gets the bytes and reports it."""
READ_LIMIT_BYTES = 65_536
BLOCKED, UNBLOCKED = b"\x00\x0a\x00\x3c", b"\x00\x0a\x00\x3d"
"""RabbitMQ's methods for the begin and the end of an alarm that blocks publishers."""
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
ALIVE_EVERY_S = 1.0
"""The library counts received frames as signs of life. It gets a heartbeat for frames that bypassed it."""


class FrameSink(Protocol):
    """Gets the frames of one channel before the library."""

    def handle(self, kind: int, frame: bytes) -> bool:
        """Handle a frame, without head and end mark; False if the library must get it. Must not raise."""


class Transport(asyncio.StreamReaderProtocol):
    """The byte stream of one connection."""

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._sinks: dict[int, FrameSink] = {}
        self._rest = b""
        self._not_amqp = False
        self._fed_at = time.monotonic()
        self._socket: asyncio.WriteTransport | None = None
        self.blocked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # A socket's transport is a WriteTransport; uvloop's has the same methods.
        self._socket = cast(asyncio.WriteTransport, transport)

    def register(self, channel: int, sink: FrameSink) -> None:
        self._sinks[channel] = sink

    def forget(self, channel: int, sink: FrameSink) -> None:
        """Remove the sink, unless the channel's number already belongs to another one."""
        if self._sinks.get(channel) is sink:
            del self._sinks[channel]

    def write(self, data: bytes) -> None:
        """Write whole frames. Raises RabbitAway when the connection is closed.

        The caller bounds the buffered bytes: by the unconfirmed publishes and the prefetch.
        """
        if self._socket is None or self._socket.is_closing():
            raise RabbitAway("the connection is closed")
        self._socket.write(data)

    def data_received(self, data: bytes) -> None:
        """Give each frame to its sink; consecutive frames for the library go there in one piece."""
        if self._not_amqp:
            super().data_received(data)
            return
        data = self._rest + data if self._rest else data
        at, library_from, end = 0, 0, len(data)
        while end - at >= OVERHEAD:
            kind, channel, size = HEAD.unpack_from(data, at)
            if kind not in KINDS or size > MOST_FRAME_BYTES:
                self._not_amqp, end = True, at
                break
            after = at + OVERHEAD + size
            if after > end:
                break
            if not channel:
                self._note_alarm(data[at + HEAD.size : at + HEAD.size + 4])
            sink = self._sinks.get(channel)
            if sink is not None and sink.handle(kind, data[at + HEAD.size : after - 1]):
                self._feed(data[library_from:at])
                library_from = after
            at = after
        self._feed(data[library_from:at])
        self._rest = data[at:]
        if self._not_amqp:
            self._feed(self._rest)
            self._rest = b""
        self._show_life()

    def _note_alarm(self, name: bytes) -> None:
        if name in (BLOCKED, UNBLOCKED):
            self.blocked = name == BLOCKED

    def _feed(self, data: bytes) -> None:
        if data:
            self._fed_at = time.monotonic()
            super().data_received(data)

    def _show_life(self) -> None:
        if time.monotonic() - self._fed_at > ALIVE_EVERY_S:
            self._feed(HEARTBEAT)

    def eof_received(self) -> bool | None:
        self._feed(self._rest)
        self._rest = b""
        return super().eof_received()


class CapturingTransportFactory(TransportFactory):
    """Creates the transport of one connection and keeps it as `created`."""

    def __init__(self) -> None:
        self.created: Transport | None = None

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, as the library's own factories do. Raises AMQPConnectionError."""
        provider = options.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_LIMIT_BYTES, loop=loop)
        created = Transport(reader, loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: created, url.host or "", url.port or 0, ssl=context, **options
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self.created = created
        return reader, asyncio.StreamWriter(transport, created, reader, loop)


class TransportConnection(aio_pika.Connection):
    """aio-pika's plain connection over a `Transport`."""

    def __init__(self, url: URL, **options: Any) -> None:
        super().__init__(url, **options)
        self._transport_factory = CapturingTransportFactory()
        self.kwargs = {**self.kwargs, "transport_factory": self._transport_factory}

    async def connect(self, timeout: Any = None) -> None:  # noqa: ASYNC109 - the library's own signature
        await super().connect(timeout)
        if self.transport is not None and self._transport_factory.created is not None:
            _transports[self.transport.connection] = self._transport_factory.created


_transports: WeakKeyDictionary[AbstractConnection, Transport] = WeakKeyDictionary()


def transport_of(connection: AbstractConnection) -> Transport:
    """The transport of a connection that `open_with_transport` made. Raises RabbitAway."""
    if (transport := _transports.get(connection)) is None:
        raise RabbitAway("the connection is closed")
    return transport


async def open_with_transport(url: str, **options: Any) -> AioPikaConnection:
    """Connect as `aio_pika.connect` does, over a `Transport`. Raises what `aio_pika.connect` raises."""
    connection: AioPikaConnection = await aio_pika.connect(
        url, connection_class=TransportConnection, **options
    )
    return connection
