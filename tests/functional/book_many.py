"""Many bookings under way while a test does harm."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from tests.functional.running_broker import Frontend, RunningBroker, booking
from tests.support import poll

BOOKINGS = 1000
AT_A_TIME = 60
BOOK = "booking.book.v1"


async def book_many(
    broker: RunningBroker,
    frontend: Frontend,
    during: Callable[[], Awaitable[None]],
    *,
    count: int = BOOKINGS,
    at_a_time: int = AT_A_TIME,
) -> list[dict[str, Any]]:
    """Send bookings, some at a time, while `during` does its harm; return them when all are answered or given up.

    The last quarter is sent after the harm, however long it takes: there is always something left to succeed.
    """
    sent: list[dict[str, Any]] = []
    slots = asyncio.Semaphore(at_a_time)

    async def one(number: int) -> None:
        async with slots:
            if number >= count * 3 // 4:
                await asyncio.wait([harm])
            body = booking(broker, number)
            sent.append(body)
            await frontend.send(BOOK, body)
            # the broker is down for longer than a citizen waits: the audit waits for it
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await poll(lambda: frontend.answers[body["requestId"]], what="an answer")

    harm = asyncio.ensure_future(during())
    await asyncio.gather(*(one(number) for number in range(count)))
    await harm
    return sent
