"""The lower bound of the cost: a loop with aio-pika and aiohttp that does the job without guarantees.

No ledger, idempotency, validation, deadlines or retries; after a crash it books twice. Like the other contestants it
publishes with confirms and acknowledges last.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aio_pika
import aiohttp
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from bench import job


async def main() -> None:
    connection = await aio_pika.connect(job.AMQP_URL)
    consuming, publishing = await connection.channel(publisher_confirms=False), await connection.channel()
    await consuming.set_qos(prefetch_count=job.PREFETCH)
    outcomes = await publishing.get_exchange(job.OUTCOMES, ensure=False)
    connector = aiohttp.TCPConnector(limit=job.PREFETCH)
    timeout = aiohttp.ClientTimeout(total=job.HTTP_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def handle(message: AbstractIncomingMessage) -> None:
            body = json.loads(message.body)
            booking = await book(session, body)
            answer = message_of(job.answer(body, booking), "answer.v1", message.correlation_id)
            await publishing.default_exchange.publish(answer, message.reply_to or "")
            await outcomes.publish(message_of(job.event(body), "outcome.v1", None), "booking.done")
            await message.ack()

        queue = await consuming.get_queue(job.BOOKINGS, ensure=False)
        await queue.consume(handle)
        print("ready", flush=True)
        await asyncio.Event().wait()


async def book(session: aiohttp.ClientSession, body: dict[str, Any]) -> dict[str, Any]:
    """The three calls of a booking."""
    async with session.get(job.times_url(body), headers=job.headers(body)) as response:
        response.raise_for_status()
        if not job.is_offered(body, await response.json()):
            raise LookupError("that time is not offered")
    wish = job.wish(body)
    async with session.post(job.reserve_url(body), headers=job.headers(body), json=wish) as response:
        response.raise_for_status()
        await response.json()
    async with session.post(job.booking_url(body), headers=job.headers(body), json=wish) as response:
        response.raise_for_status()
        booking: dict[str, Any] = await response.json()
        return booking


def message_of(body: dict[str, Any], type_: str, correlation_id: str | None) -> aio_pika.Message:
    return aio_pika.Message(
        json.dumps(body).encode(),
        content_type="application/json",
        type=type_,
        correlation_id=correlation_id,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


if __name__ == "__main__":
    uvloop.run(main())
