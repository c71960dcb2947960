"""The job on FastStream: a subscriber with a pydantic model, its answer returned, its event from a publisher.

As its documentation describes: uvloop by the CLI, a quorum queue, prefetch on the default channel, publisher confirms
(the default), acknowledgement after the work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from faststream import AckPolicy, ContextRepo, FastStream
from faststream.rabbit import Channel, ExchangeType, QueueType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.rabbit.response import RabbitResponse
from pydantic import BaseModel

from bench import job
from bench.contestants.bare import book


class Booking(BaseModel):
    """The body of a request."""

    requestId: str
    sentAt: str
    cpr: str
    jobcenterkode: str
    kontaktgruppe: str
    moedetilbudId: str
    starttidspunkt: str
    moedeform: str
    sagsbehandlerId: str


@asynccontextmanager
async def lifespan(context: ContextRepo) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=job.PREFETCH)
    timeout = aiohttp.ClientTimeout(total=job.HTTP_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        context.set_global("session", session)
        yield


broker = RabbitBroker(job.AMQP_URL, default_channel=Channel(prefetch_count=job.PREFETCH))
app = FastStream(broker, lifespan=lifespan)
requests = RabbitExchange(job.REQUESTS, type=ExchangeType.TOPIC, durable=True, declare=False)
outcomes = RabbitExchange(job.OUTCOMES, type=ExchangeType.TOPIC, durable=True, declare=False)
bookings = RabbitQueue(
    job.BOOKINGS, queue_type=QueueType.QUORUM, durable=True, declare=False, routing_key=job.KEY
)
events = broker.publisher(exchange=outcomes, routing_key="booking.done", persist=True)


@broker.subscriber(bookings, requests, ack_policy=AckPolicy.NACK_ON_ERROR)
async def handle(body: Booking) -> RabbitResponse:
    fields: dict[str, Any] = body.model_dump()
    booking = await book(app.context.get("session"), fields)
    await events.publish(job.event(fields), message_type="outcome.v1")
    return RabbitResponse(job.answer(fields, booking), persist=True, message_type="answer.v1")
