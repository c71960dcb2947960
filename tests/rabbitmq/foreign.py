"""A foreign client: pika, with properties as raw bytes. Its functions block."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika
from pika.spec import BasicProperties


class RawProperties(BasicProperties):
    """Properties with these flags and raw bytes, valid or not."""

    def __init__(self, flags: int, data: bytes) -> None:
        super().__init__()
        self._raw = [struct.pack(">H", flags), data]

    def encode(self) -> list[bytes]:
        return self._raw


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def table(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def nested(depth: int) -> bytes:
    """Header tables nested `depth` times."""
    inner = b""
    for _ in range(depth):
        inner = b"\x01aF" + table(inner)
    return table(inner)


@contextmanager
def channel(url: str) -> Iterator[Any]:
    """A channel in confirm mode."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        opened = connection.channel()
        opened.confirm_delivery()
        yield opened
    finally:
        if connection.is_open:
            connection.close()


def publish(url: str, routing_key: str, *messages: tuple[bytes, Any], exchange: str = "") -> None:
    """Publish bodies with their properties (None: none), each confirmed."""
    with channel(url) as opened:
        for body, properties in messages:
            opened.basic_publish(exchange, routing_key, body, properties)


def declare(url: str, *names: str, **arguments: Any) -> None:
    """Quorum queues with these arguments (underscores for hyphens)."""
    given = {"x-queue-type": "quorum", **{k.replace("_", "-"): v for k, v in arguments.items()}}
    with channel(url) as opened:
        for name in names:
            opened.queue_declare(name, durable=True, arguments=given)


def delete(url: str, name: str) -> None:
    with channel(url) as opened:
        opened.queue_delete(name)


def get(url: str, queue: str, within: float = 10) -> Any:
    """Remove the next message from a queue and return (method, properties, body)."""
    until = time.monotonic() + within
    with channel(url) as opened:
        while time.monotonic() < until:
            got = opened.basic_get(queue, auto_ack=True)
            if got[0]:
                return got
            time.sleep(0.05)
    raise AssertionError(f"nothing came to {queue}")


def depth(url: str, queue: str) -> int:
    """Messages ready in a queue."""
    with channel(url) as opened:
        return int(opened.queue_declare(queue, passive=True).method.message_count)
