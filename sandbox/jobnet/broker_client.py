"""How a frontend asks the broker: an aio-pika client, and the example of how to be one.

One connection; answers come by direct reply-to, told apart by a correlation id of each sending. When the connection
breaks while a request is out, the same request goes out again: its requestId makes sure of one effect. It also listens
to jobnet.outcomes for the last word on what was uncertain. Knows nothing of pages.
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

DIRECT = "amq.rabbitmq.reply-to"
REQUESTS, OUTCOMES = "jobnet.requests", "jobnet.outcomes"
PATIENCE_S = 12.0  # a little longer than the deadline in the request, which the broker keeps
PUBLISH_S = 3.0
PAUSE_S = 0.3
MOST_WAITING = 200
MOST_EVENTS = 1_000
TROUBLE = (*CONNECTION_EXCEPTIONS, ChannelInvalidStateError, TimeoutError)

Event = Mapping[str, Any]


class NoAnswer(Exception):
    """No answer came in time. What became of the request is not known; the same requestId may be sent again."""


@dataclass(frozen=True)
class _Line:
    """An open connection; `lost` ends with the channel on which requests go out and answers come in."""

    connection: AbstractConnection
    requests: AbstractExchange
    lost: asyncio.Future[Any]


class BrokerClient:
    """`async with BrokerClient(url) as asking`. Set `heard` to be told every event about a booking."""

    def __init__(self, url: str) -> None:
        self.heard: Callable[[Event], None] = lambda event: None
        self._url = url
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._opening = asyncio.Lock()
        self._line: _Line | None = None

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._line is not None:
            self._line.lost.cancel()
            await self._line.connection.close()

    async def ask(
        self, type_: str, body: Mapping[str, Any], *, patience_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """The broker's answer to one request. Raises NoAnswer when none came in `patience_s`."""
        if len(self._waiting) >= MOST_WAITING:
            raise NoAnswer("too many requests are out already")
        mark = str(uuid4())
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[mark] = answered
        try:
            async with asyncio.timeout(patience_s):
                return await self._sent_until_answered(type_, json.dumps(body).encode(), mark, answered)
        except TimeoutError:
            raise NoAnswer(f"no answer within {patience_s:g} s") from None
        finally:
            del self._waiting[mark]

    async def _sent_until_answered(
        self, type_: str, body: bytes, mark: str, answered: asyncio.Future[dict[str, Any]]
    ) -> dict[str, Any]:
        while True:
            with suppress(*TROUBLE):
                line = await self._opened()
                await self._publish(line, type_, body, mark)
                await asyncio.wait([answered, line.lost], return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                return answered.result()
            await asyncio.sleep(PAUSE_S)

    async def _publish(self, line: _Line, type_: str, body: bytes, mark: str) -> None:
        message = aio_pika.Message(
            body,
            content_type="application/json",
            type=type_,
            correlation_id=mark,
            message_id=str(uuid4()),  # of this sending; the requestId in the body is of the request
            reply_to=DIRECT,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            headers={"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"},
        )
        await line.requests.publish(message, type_.rpartition(".v")[0], timeout=PUBLISH_S)

    async def _opened(self) -> _Line:
        """The line that is open now, or a new one."""
        async with self._opening:
            if self._line is None or self._line.lost.done():
                if self._line is not None:
                    await self._line.connection.close()
                self._line = await self._open()
            return self._line

    async def _open(self) -> _Line:
        connection = await aio_pika.connect(self._url, timeout=PUBLISH_S)
        try:
            channel = await connection.channel()
            direct = await channel.get_queue(DIRECT, ensure=False)
            await direct.consume(self._answered, no_ack=True)
            await self._listen(connection)
            requests = await channel.get_exchange(REQUESTS, ensure=False)
        except BaseException:
            await connection.close()
            raise
        return _Line(connection, requests, asyncio.ensure_future(channel.closed()))

    async def _listen(self, connection: AbstractConnection) -> None:
        channel = await connection.channel()
        # No name: RabbitMQ gives it one, and takes the queue away with the connection.
        events = await channel.declare_queue("", exclusive=True, arguments={"x-max-length": MOST_EVENTS})
        await events.bind(OUTCOMES, "booking.#")
        await events.consume(self._happened, no_ack=True)

    async def _answered(self, message: AbstractIncomingMessage) -> None:
        waiting = self._waiting.get(message.correlation_id or "")
        if waiting is not None and not waiting.done():
            waiting.set_result(json.loads(message.body))

    async def _happened(self, message: AbstractIncomingMessage) -> None:
        self.heard(json.loads(message.body))
