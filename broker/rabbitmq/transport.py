"""The bytes between aiormq and RabbitMQ, with a way past the library for the frames that come by the thousand.

aiormq takes a frame through a queue, two tasks and four futures. Here whoever registered for a channel (`traffic.py`)
sees its frames first, in the call that brought the bytes, and takes what it knows; everything else goes on to the
library untouched: handshake, heartbeats, opening and closing of channels, consumers, declarations, errors.
Only ways that the library offers are used: its transport factory, and asyncio's stream reader.
Measured together with `traffic.py`: publish and confirm 93 µs of CPU with the library, 27 µs past it; an arrival with its
acknowledgement 69 µs and 27 µs (docs/adr/0012-hot-frames-bypass-aiormq.md).
"""

from __future__ import annotations

import asyncio
import time
from struct import Struct
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

import aio_pika
from aio_pika.abc import AbstractConnection as Convenient
from aiormq.abc import AbstractConnection
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from broker.errors import RabbitAway

HEAD = Struct(">BHI")
"""How each frame begins: kind, channel, size."""
OVERHEAD = HEAD.size + 1
KINDS = frozenset({1, 2, 3, 8})
"""Method, content header, content body, heartbeat."""
MOST_FRAME_BYTES = 1_048_576
"""RabbitMQ announces 131072. Whoever sends more does not speak AMQP, and the library is left to say so."""
READ_LIMIT_BYTES = 65_536
BLOCKED, UNBLOCKED = b"\x00\x0a\x00\x3c", b"\x00\x0a\x00\x3d"
"""How RabbitMQ says that an alarm stops publishers, and that it is over."""
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
ALIVE_EVERY_S = 1.0
"""The library counts the frames that it sees as signs of life; those that it does not see are told as a heartbeat."""


class FrameSink(Protocol):
    """Sees the frames of one channel first."""

    def take(self, kind: int, frame: bytes) -> bool:
        """Whether the frame was its own; `frame` is what is between head and end mark. Must not raise."""


class Transport(asyncio.StreamReaderProtocol):
    """One connection's bytes."""

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._takers: dict[int, FrameSink] = {}
        self._rest = b""
        self._strange = False
        self._fed_at = time.monotonic()
        self._transport_now: asyncio.WriteTransport | None = None
        self.blocked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._transport_now = cast(
            asyncio.WriteTransport, transport
        )  # a socket's is one, and uvloop's acts as one

    def register(self, channel: int, taker: FrameSink) -> None:
        self._takers[channel] = taker

    def forget(self, channel: int, taker: FrameSink) -> None:
        """Nothing more for it; the number may be another channel's already."""
        if self._takers.get(channel) is taker:
            del self._takers[channel]

    def write(self, data: bytes) -> None:
        """Whole frames, after what was written before. Bounded by who writes: unconfirmed publishes, prefetch.

        Raises RabbitAway when the connection is gone.
        """
        if self._transport_now is None or self._transport_now.is_closing():
            raise RabbitAway("the connection is closed")
        self._transport_now.write(data)

    def data_received(self, data: bytes) -> None:
        """Frame by frame to their takers; runs of others, in one piece each, to the library."""
        if self._strange:
            super().data_received(data)
            return
        data = self._rest + data if self._rest else data
        at, kept_from, end = 0, 0, len(data)
        while end - at >= OVERHEAD:
            kind, channel, size = HEAD.unpack_from(data, at)
            if kind not in KINDS or size > MOST_FRAME_BYTES:
                self._strange, end = True, at
                break
            after = at + OVERHEAD + size
            if after > end:
                break
            if not channel:
                self._note(data[at + HEAD.size : at + HEAD.size + 4])
            taker = self._takers.get(channel)
            if taker is not None and taker.take(kind, data[at + HEAD.size : after - 1]):
                self._feed(data[kept_from:at])
                kept_from = after
            at = after
        self._feed(data[kept_from:at])
        self._rest = data[at:]
        if self._strange:
            self._feed(self._rest)
            self._rest = b""
        self._show_life()

    def _note(self, name: bytes) -> None:
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


class Transports(TransportFactory):
    """Makes the stream of one connection."""

    def __init__(self) -> None:
        self.stream: Transport | None = None

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As the library's own factories do. Raises AMQPConnectionError."""
        provider = options.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_LIMIT_BYTES, loop=loop)
        stream = Transport(reader, loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: stream, url.host or "", url.port or 0, ssl=context, **options
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self.stream = stream
        return reader, asyncio.StreamWriter(transport, stream, reader, loop)


class TransportConnection(aio_pika.Connection):
    """aio-pika's plain connection over a stream of ours."""

    def __init__(self, url: URL, **options: Any) -> None:
        super().__init__(url, **options)
        self._streams = Transports()
        self.kwargs = {**self.kwargs, "transport_factory": self._streams}

    async def connect(self, timeout: Any = None) -> None:  # noqa: ASYNC109  the library's own signature
        await super().connect(timeout)
        if self.transport is not None and self._streams.stream is not None:
            _streams[self.transport.connection] = self._streams.stream


_streams: WeakKeyDictionary[AbstractConnection, Transport] = WeakKeyDictionary()


def stream_of(raw: AbstractConnection) -> Transport:
    """The bytes below a connection that `open_streamed` made. Raises RabbitAway."""
    if (stream := _streams.get(raw)) is None:
        raise RabbitAway("the connection is closed")
    return stream


async def open_streamed(url: str, **options: Any) -> Convenient:
    """Connect as `aio_pika.connect` does, and raise what it raises."""
    connection: Convenient = await aio_pika.connect(url, connection_class=TransportConnection, **options)
    return connection
