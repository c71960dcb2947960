"""The command `send`: publish requests from JSON lines as a frontend would, and print what is answered.

Answers come to a queue of this command's own, which goes with its connection. At most `AT_A_TIME` requests wait at once.
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
MOST_LINE_BYTES = 1_000_000
"""A longer line is not sent: a request is at most some kilobytes."""


class BadLine(BrokerError):
    """A line of the file cannot be sent; the text names the line and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class RequestLine:
    """One request to send: `body` as bytes, so that a wrong one can be sent on purpose as a string."""

    type: str
    body: bytes


def letters_of(lines: Iterable[bytes]) -> Iterator[RequestLine]:
    """Requests from JSON lines; requestId and sentAt are filled in where they are missing. Raises BadLine."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _letter(number, line)


def _letter(number: int, line: bytes) -> RequestLine:
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
    """Send every line and echo each answer as one JSON line; returns how many got none in `wait` seconds.

    Raises BadLine before anything of that line or later ones is sent, and RabbitAway.
    """
    unanswered = 0
    room = asyncio.Semaphore(AT_A_TIME)
    async with (
        open_rpc_client(settings, f"jobnet.answers.cli-{uuid4()}") as box,
        asyncio.TaskGroup() as tasks,
    ):

        async def one(letter: RequestLine) -> None:
            nonlocal unanswered
            try:
                echo((await _ask(box, letter, wait)).decode())
            except TimeoutError:
                unanswered += 1
            finally:
                room.release()

        for letter in letters_of(lines):
            await room.acquire()
            tasks.create_task(one(letter))
    return unanswered


async def _ask(box: RpcClient, letter: RequestLine, wait: float) -> bytes:
    key = letter.type.rpartition(".")[0] or letter.type
    return await box.ask(Outgoing(REQUESTS, key, letter.body, letter.type), wait)
