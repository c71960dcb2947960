"""A client that writes and reads AMQP's bytes itself: property values that no library lets through. It blocks."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import pamqp.frame
from pamqp.base import Frame
from pamqp.commands import Basic, Channel, Connection
from pamqp.header import ContentHeader

METHOD, HEADER = 1, 2
DIRECT_REPLY = "amq.rabbitmq.reply-to"


class RawClient:
    """One channel of one connection, consuming direct reply-to."""

    def __init__(self, connected: socket.socket, reading: BinaryIO, path: str) -> None:
        self._socket, self._reading = connected, reading
        connected.sendall(b"AMQP\x00\x00\x09\x01")
        self._frame()  # Start
        self._send(Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"), channel=0)
        self._frame()  # Tune
        self._send(Connection.TuneOk(1, 131072, 0), channel=0)
        self._send(Connection.Open(path), channel=0)
        self._frame()  # OpenOk
        self._send(Channel.Open())
        self._frame()
        self._send(Basic.Consume(0, DIRECT_REPLY, "", False, True))
        self._frame()  # ConsumeOk

    def publish(self, exchange: str, routing_key: str, body: bytes, flags: int, properties: bytes) -> None:
        """Publish with these property flags and the bytes of the values."""
        self._send(Basic.Publish(0, exchange, routing_key))
        header = struct.pack(">HHQH", 60, 0, len(body), flags) + properties
        self._socket.sendall(struct.pack(">BHI", HEADER, 1, len(header)) + header + b"\xce")
        self._socket.sendall(struct.pack(">BHI", 3, 1, len(body)) + body + b"\xce")

    def arrival(self) -> tuple[bytes, bytes]:
        """The content header (from its flags on) and the body of the next message."""
        kind, frame = self._frame()
        assert (kind, frame[:4]) == (METHOD, b"\x00\x3c\x00\x3c"), frame[:80]
        _, header = self._frame()
        (size,) = struct.unpack_from(">Q", header, 4)
        body = b""
        while len(body) < size:
            body += self._frame()[1]
        return header[12:], body

    def _send(self, frame: Frame | ContentHeader, channel: int = 1) -> None:
        self._socket.sendall(pamqp.frame.marshal(frame, channel))

    def _frame(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BHI", self._reading.read(7))
        payload = self._reading.read(length + 1)[:-1]
        return kind, payload


def correlation_id_of(header: bytes) -> bytes | None:
    """The bytes of `correlation_id` in a content header (from its flags on); None if there is none."""
    (flags,) = struct.unpack_from(">H", header)
    at = 2
    for name in Basic.Properties.attributes():
        if not flags & Basic.Properties.flags[name]:
            continue
        kind = Basic.Properties.amqp_type(name)
        length = _length(kind, header[at:])
        if name == "correlation_id":
            return header[at + 1 : at + length]
        at += length
    return None


def _length(kind: str, rest: bytes) -> int:
    if kind == "shortstr":
        return 1 + rest[0]
    if kind == "table":
        return 4 + int(struct.unpack_from(">I", rest)[0])
    return 8 if kind == "timestamp" else 1


@contextmanager
def raw_client(url: str) -> Iterator[RawClient]:
    """A client on this virtual host, as the user guest."""
    at: Any = urlsplit(url)
    with (
        socket.create_connection((at.hostname, at.port), timeout=30) as connected,
        connected.makefile("rb") as reading,
    ):
        yield RawClient(connected, reading, unquote(at.path[1:]) or "/")
