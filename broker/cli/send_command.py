"""The command `send`: publish requests from JSON lines as a frontend would, and print the answers.

Answers arrive on a temporary queue that is deleted with the connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from broker.errors import BrokerError
from broker.rabbitmq import Outgoing, RpcClient, open_rpc_client
from broker.rabbitmq.topology import REQUESTS
from config.settings import Settings

AT_A_TIME = 50
"""Most requests that wait for an answer at the same time."""
MOST_LINE_BYTES = 1_000_000
"""Longer lines are refused: a request has a few kilobytes."""


class BadLine(BrokerError):
    """A line of the file cannot be sent; the text names the line and the problem."""


@dataclass(frozen=True, slots=True)
class RequestLine:
    """One request to send. `body` is bytes: a string in the file is sent as it is, so invalid bodies can be tested."""

    type: str
    body: bytes


def requests_of(lines: Iterable[bytes]) -> Iterator[RequestLine]:
    """Requests from JSON lines. A missing requestId or sentAt is filled in. Raises BadLine."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _request(number, line)


def _request(number: int, line: bytes) -> RequestLine:
    if len(line) > MOST_LINE_BYTES:
        raise BadLine(f"line {number}: longer than {MOST_LINE_BYTES} bytes")
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        raise BadLine(f"line {number}: is not JSON") from None
    type_ = content.get("type") if isinstance(content, dict) else None
    body = content.get("body") if isinstance(content, dict) else None
    if not isinstance(type_, str) or not isinstance(body, dict | str):
        raise BadLine(
            f'line {number}: must be an object such as {{"type": "booking.book.v1", "body": {{…}}}}'
        )
    if isinstance(body, dict):
        filled = {"requestId": str(uuid4()), "sentAt": datetime.now(UTC).isoformat(), **body}
        body = json.dumps(filled, ensure_ascii=False)
    return RequestLine(type_, body.encode())


async def send_lines(
    settings: Settings, lines: Iterable[bytes], wait: float, echo: Callable[[str], Any]
) -> int:
    """Send every line and echo each answer as one JSON line.

    Returns the number of requests without an answer within `wait` seconds. Raises RabbitAway, and BadLine before that
    line or a later one is sent.
    """
    unanswered = 0
    places = asyncio.Semaphore(AT_A_TIME)
    async with (
        open_rpc_client(settings, f"jobnet.answers.cli-{uuid4()}") as client,
        asyncio.TaskGroup() as tasks,
    ):

        async def ask(request: RequestLine) -> None:
            nonlocal unanswered
            try:
                echo((await _answer(client, request, wait)).decode())
            except TimeoutError:
                unanswered += 1
            finally:
                places.release()

        for request in requests_of(lines):
            await places.acquire()
            tasks.create_task(ask(request))
    return unanswered


async def _answer(client: RpcClient, request: RequestLine, wait: float) -> bytes:
    key = request.type.rpartition(".")[0] or request.type
    return await client.ask(Outgoing(REQUESTS, key, request.body, request.type), wait)
