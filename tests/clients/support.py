"""Shared by the tests of the clients: a scripted raw HTTP server, short limits, a made-up citizen."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self
from uuid import UUID, uuid4

from broker.clients.calls import Caller
from broker.clients.http import HttpSystem
from config.sections import HttpLimits
from config.systems import SystemConfig
from schemas.personal import Cpr

CPR = "0101364001"
OFFER = UUID("0f0f0f0f-0000-4000-8000-000000000001")
INVITATION = UUID("0f0f0f0f-0000-4000-8000-000000000002")
FAULT = "urn:borgerbooking:fejl:"

BOOKING = {
    "indkaldelseId": str(INVITATION),
    "moedetilbudId": str(OFFER),
    "starttidspunkt": "2031-03-03T09:00:00+01:00",
    "sluttidspunkt": "2031-03-03T09:30:00+01:00",
    "moedeform": "telefonisk",
    "sagsbehandler": {"id": "sb-1", "navn": "Inger Prøve"},
    "accepteret": False,
    "kanOmbookes": True,
    "kanAflyses": True,
}


class End(Enum):
    """How the server ends a try without an answer or in the middle of one."""

    CLOSE = "close"
    RESET = "reset"
    HANG = "hang"


Action = bytes | End | tuple[bytes, End]


@dataclass(frozen=True)
class Request:
    """A request that the server received."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def x_request_id(self) -> str:
        return self.headers["x-requestid"]


def http(status: int, body: bytes | str | dict[str, Any] = b"", *headers: str, kind: str = "") -> bytes:
    """The bytes of an answer."""
    if isinstance(body, dict):
        kind = kind or "application/json"
        body = json.dumps(body)
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Whatever", *headers]
    if kind:
        lines.append(f"Content-Type: {kind}")
    if status != 204:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def fault(status: int, name: str, **more: str) -> bytes:
    """The bytes of a problem document; `name` is the last part of its type."""
    return http(status, {"type": FAULT + name} | more, kind="application/problem+json")


class RawServer:
    """Answers each request with the next action of `script`, then with `default`, on kept connections."""

    def __init__(
        self, *script: Action, default: Action = End.CLOSE, tls: ssl.SSLContext | None = None
    ) -> None:
        self.script = deque(script)
        self.default = default
        self.requests: list[Request] = []
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the aborted transports close in the loop's next round
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
                await self._serve(reader, writer, self.connections)
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            self.requests.append(await _read(reader, number))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                action = self.script.popleft() if self.script else self.default
                if not await _act(action, writer, reader):
                    return
            finally:
                self.at_once -= 1


async def _act(action: Action, writer: asyncio.StreamWriter, reader: asyncio.StreamReader) -> bool:
    answer, end = action if isinstance(action, tuple) else (action, None)
    if isinstance(answer, bytes):
        writer.write(answer)
        await writer.drain()
    else:
        end = answer
    if end is End.HANG:
        await reader.read()  # until the client gives up
    if end is End.RESET:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    return end is None


async def _read(reader: asyncio.StreamReader, number: int) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body, number)


def limits(**changes: Any) -> HttpLimits:
    """Limits with short times and a breaker that never opens, overridden by `changes`."""
    quick: dict[str, Any] = {
        "connect_timeout_seconds": 1.0,
        "total_timeout_seconds": 0.4,
        "max_response_bytes": 20_000,
        "in_flight": 10,
        "waiting": 10,
        "retry_first_ms": 2,
        "retry_max_ms": 10,
        "breaker_failures": 1000,
        "quiet_ms": 0,
        "breaker_open_seconds": 60,
    }
    return HttpLimits(**(quick | changes))


def system(url: str, *, config: dict[str, Any] | None = None, **changes: Any) -> HttpSystem:
    """An external system at `url`, with these keys in its configuration and these changes of its limits."""
    system_config = SystemConfig(base_url=url, allow_http=url.startswith("http:"), **(config or {}))
    return HttpSystem("nordby", system_config, limits(**changes))


def caller(
    seconds: float = 5.0,
    *,
    request_id: UUID | None = None,
    may_commit: Callable[[float], None] = lambda _: None,
    traceparent: str | None = None,
) -> Caller:
    """A caller whose answer is due in `seconds`."""
    return Caller(
        request_id=request_id or uuid4(),
        cpr=Cpr(CPR),
        jobcenter_code="08510",
        traceparent=traceparent,
        answer_by=time.monotonic() + seconds,
        may_commit=may_commit,
    )
