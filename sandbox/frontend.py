"""A Jobnet frontend as the sample day needs one: publishes requests to RabbitMQ and waits for one answer to each.

It uses AMQP and the message contract (docs/contract.md#messages) only. Half of the answers come by direct reply-to,
the others to a queue of its own. It also consumes jobnet.outcomes.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from types import TracebackType
from typing import Any, Self

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

DIRECT = "amq.rabbitmq.reply-to"
REQUESTS, OUTCOMES = "jobnet.requests", "jobnet.outcomes"
MAX_OUTCOMES = 10_000


class Frontend:
    """`async with Frontend(url) as frontend`. For at most a few thousand requests at a time.

    `unexpected_answers` has the correlation ids of answers that no request waited for; `report_events` the last
    outcome event of each failure report, by its id.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._finals: OrderedDict[str, asyncio.Future[dict[str, Any]]] = OrderedDict()
        self.unexpected_answers: list[str] = []
        self.report_events: dict[str, dict[str, Any]] = {}
        self._asked = 0
        self._connection: AbstractConnection | None = None

    async def __aenter__(self) -> Self:
        self._connection = await aio_pika.connect(self._url)
        self._channel = await self._connection.channel()
        direct = await self._channel.get_queue(DIRECT, ensure=False)
        await direct.consume(self._on_answer, no_ack=True)
        self._own = await self._channel.declare_queue("", exclusive=True)  # RabbitMQ generates the name
        await self._own.consume(self._on_answer, no_ack=True)
        await self._listen(await self._connection.channel())
        self._requests = await self._channel.get_exchange(REQUESTS, ensure=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _listen(self, channel: AbstractChannel) -> None:
        outcomes = await channel.declare_queue("", exclusive=True)
        await outcomes.bind(OUTCOMES, "#")
        await outcomes.consume(self._on_event, no_ack=True)

    async def ask(
        self, key: str, type: str, body: bytes, *, mark: str, wait_s: float
    ) -> tuple[bytes, dict[str, Any]]:
        """Send one request and return its answer, raw and parsed. Raises TimeoutError when none comes.

        `mark` is the correlation id. Every second request uses direct reply-to.
        """
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[mark] = answered
        self._asked += 1
        message = aio_pika.Message(
            body,
            content_type="application/json",
            type=type,
            correlation_id=mark,
            message_id=mark,
            reply_to=DIRECT if self._asked % 2 else self._own.name,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        try:
            await self._requests.publish(message, key, timeout=wait_s)
            answer = await asyncio.wait_for(answered, wait_s)
        finally:
            del self._waiting[mark]
        return answer["raw"], answer["parsed"]

    async def final_event(self, request_id: str, wait_s: float) -> dict[str, Any]:
        """The event that corrects an uncertain answer. Raises TimeoutError when none comes."""
        return await asyncio.wait_for(asyncio.shield(self._final(request_id)), wait_s)

    def _final(self, request_id: str) -> asyncio.Future[dict[str, Any]]:
        if request_id not in self._finals:
            self._finals[request_id] = asyncio.get_running_loop().create_future()
            if len(self._finals) > MAX_OUTCOMES:
                self._finals.popitem(last=False)
        return self._finals[request_id]

    async def _on_answer(self, message: AbstractIncomingMessage) -> None:
        waiting = self._waiting.get(message.correlation_id or "")
        if waiting is None or waiting.done():
            self.unexpected_answers.append(message.correlation_id or "")
            return
        try:
            parsed = json.loads(message.body)
        except ValueError:
            parsed = {"status": "unreadable"}
        waiting.set_result({"raw": message.body, "parsed": parsed})

    async def _on_event(self, message: AbstractIncomingMessage) -> None:
        event = json.loads(message.body)
        if event.get("reportId") and len(self.report_events) < MAX_OUTCOMES:
            self.report_events[event["reportId"]] = event
        if event.get("correctsUncertain") and event.get("requestId"):
            final = self._final(event["requestId"])
            if not final.done():
                final.set_result(event)
