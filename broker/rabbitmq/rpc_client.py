"""A client that sends requests as a frontend does and waits for their answers. Only commands use it.

It has a temporary connection and an exclusive answer queue, which RabbitMQ deletes with the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

from aiormq.abc import DeliveredMessage

from broker.errors import RabbitAway
from broker.rabbitmq.confirms import encode
from broker.rabbitmq.connection import RPC_TIMEOUT_S, open_channel, temporary_connection, translate_errors
from broker.rabbitmq.frames import PublishTap
from broker.rabbitmq.messages import Outgoing, Published
from config.settings import Settings


class RpcClient:
    """Sends several requests at once; a correlation id assigns each answer to its request."""

    def __init__(self, publishing: PublishTap, queue: str) -> None:
        self._publishing = publishing
        self._queue = queue
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    async def ask(self, out: Outgoing, wait: float) -> bytes:
        """Publish a request and return the body of its answer.

        Raises TimeoutError after `wait` seconds without an answer, RabbitAway when the request was not confirmed.
        """
        out = replace(out, correlation_id=str(uuid4()), reply_to=self._queue)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[out.correlation_id or ""] = answer
        try:
            await self._send(out)
            async with asyncio.timeout(wait):
                return await answer
        finally:
            del self._waiting[out.correlation_id or ""]

    async def _send(self, out: Outgoing) -> None:
        message = encode(out)
        with translate_errors("sending"):
            async with asyncio.timeout(RPC_TIMEOUT_S):
                published = await self._publishing.publish(message, within=RPC_TIMEOUT_S)
        if published is not Published.CONFIRMED:
            raise RabbitAway(f"the request was {published.value}")

    async def receive(self, message: DeliveredMessage) -> None:
        """The consumer's callback. An answer to no current request is dropped."""
        waiting = self._waiting.get(message.header.properties.correlation_id or "")
        if waiting and not waiting.done():
            waiting.set_result(message.body)


@asynccontextmanager
async def open_rpc_client(settings: Settings, queue: str) -> AsyncIterator[RpcClient]:
    """A client whose answer queue has this name. Raises RabbitAway."""
    url = settings.rabbitmq.url.get_secret_value()
    name, heartbeat = f"mailbox {queue}", settings.rabbitmq.heartbeat_seconds
    async with temporary_connection(url, name, heartbeat) as connection:
        with translate_errors("opening a mailbox"):
            client = RpcClient(PublishTap(await open_channel(connection, confirms=True)), queue)
            receiving = await open_channel(connection, confirms=False)
            await receiving.queue_declare(queue, exclusive=True, auto_delete=True, timeout=RPC_TIMEOUT_S)
            await receiving.basic_consume(queue, client.receive, no_ack=True, timeout=RPC_TIMEOUT_S)
        yield client
