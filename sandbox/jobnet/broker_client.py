"""An AMQP client of the broker, written with aio-pika; an example for frontends.

One connection. Answers come by direct reply-to; the correlation id says which request an answer belongs to. When the
connection breaks while a request waits, the same request is sent again: its requestId makes sure that it has one
effect (R8). The client also consumes jobnet.outcomes, where the final outcome of an uncertain booking is announced.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, ChannelInvalidStateError

DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
REQUESTS, OUTCOMES = "jobnet.requests", "jobnet.outcomes"
# A little longer than the deadline in the request, by which the broker answers.
TIMEOUT_S = 12.0
PUBLISH_S = 3.0
RETRY_PAUSE_S = 0.3
MAX_WAITING = 200
MAX_EVENTS = 1_000
CONNECTION_ERRORS = (*CONNECTION_EXCEPTIONS, ChannelInvalidStateError, TimeoutError)

Event = Mapping[str, Any]


class NoAnswer(Exception):
    """No answer came in time. The outcome of the request is not known; it may be sent again with the same requestId."""


@dataclass(frozen=True)
class _Connection:
    """An open connection. `lost` is done when the channel for requests and answers has closed."""

    connection: AbstractConnection
    requests: AbstractExchange
    lost: asyncio.Future[Any]


class BrokerClient:
    """`async with BrokerClient(url) as broker`. `on_event` is called with every outcome event of a booking."""

    def __init__(self, url: str) -> None:
        self.on_event: Callable[[Event], None] = lambda event: None
        self._url = url
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._opening = asyncio.Lock()
        self._current: _Connection | None = None

    async def __aenter__(self) -> Self:
        await self._connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._current is not None:
            self._current.lost.cancel()
            await self._current.connection.close()

    async def ask(
        self, type_: str, body: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """Send one request and return its answer. Raises NoAnswer when none came in `timeout_s`."""
        if len(self._waiting) >= MAX_WAITING:
            raise NoAnswer("too many requests are waiting already")
        correlation_id = str(uuid4())
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[correlation_id] = answer
        try:
            async with asyncio.timeout(timeout_s):
                return await self._send_until_answered(
                    type_, json.dumps(body).encode(), correlation_id, answer
                )
        except TimeoutError:
            raise NoAnswer(f"no answer within {timeout_s:g} s") from None
        finally:
            del self._waiting[correlation_id]

    async def _send_until_answered(
        self, type_: str, body: bytes, correlation_id: str, answer: asyncio.Future[dict[str, Any]]
    ) -> dict[str, Any]:
        while True:
            with suppress(*CONNECTION_ERRORS):
                opened = await self._connected()
                await self._publish(opened, type_, body, correlation_id)
                await asyncio.wait([answer, opened.lost], return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _publish(self, opened: _Connection, type_: str, body: bytes, correlation_id: str) -> None:
        message = aio_pika.Message(
            body,
            content_type="application/json",
            type=type_,
            correlation_id=correlation_id,
            message_id=str(uuid4()),  # new for each sending, unlike the requestId in the body
            reply_to=DIRECT_REPLY_TO,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            headers={"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"},
        )
        await opened.requests.publish(message, type_.rpartition(".v")[0], timeout=PUBLISH_S)

    async def _connected(self) -> _Connection:
        """The open connection, or a new one."""
        async with self._opening:
            if self._current is None or self._current.lost.done():
                if self._current is not None:
                    await self._current.connection.close()
                self._current = await self._open()
            return self._current

    async def _open(self) -> _Connection:
        connection = await aio_pika.connect(self._url, timeout=PUBLISH_S)
        try:
            channel = await connection.channel()
            replies = await channel.get_queue(DIRECT_REPLY_TO, ensure=False)
            await replies.consume(self._on_answer, no_ack=True)
            await self._listen(connection)
            requests = await channel.get_exchange(REQUESTS, ensure=False)
        except BaseException:
            await connection.close()
            raise
        return _Connection(connection, requests, asyncio.ensure_future(channel.closed()))

    async def _listen(self, connection: AbstractConnection) -> None:
        channel = await connection.channel()
        # RabbitMQ generates the name, and deletes the queue with the connection.
        events = await channel.declare_queue("", exclusive=True, arguments={"x-max-length": MAX_EVENTS})
        await events.bind(OUTCOMES, "booking.#")
        await events.consume(self._on_outcome, no_ack=True)

    async def _on_answer(self, message: AbstractIncomingMessage) -> None:
        waiting = self._waiting.get(message.correlation_id or "")
        if waiting is not None and not waiting.done():
            waiting.set_result(json.loads(message.body))

    async def _on_outcome(self, message: AbstractIncomingMessage) -> None:
        self.on_event(json.loads(message.body))
