"""Asking as a frontend does: a request out, its answer back to a queue of our own. Only commands use it.

The connection is not supervised and the queue goes with it; the broker itself never waits for an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

from aiormq.abc import DeliveredMessage

from broker.errors import RabbitAway
from broker.rabbitmq.confirms import ready_of
from broker.rabbitmq.connection import RPC_TIMEOUT_S, connected, open_channel, translated
from broker.rabbitmq.frames import PublishTap
from broker.rabbitmq.messages import Outgoing, Published
from config.settings import Settings


class RpcClient:
    """Answers to several questions at once, told apart by their correlation id."""

    def __init__(self, publishing: PublishTap, queue: str) -> None:
        self._publishing = publishing
        self._queue = queue
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    async def ask(self, out: Outgoing, wait: float) -> bytes:
        """Publish and return the answer's body.

        Raises TimeoutError after `wait` seconds without one, RabbitAway when it was not taken.
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
        ready = ready_of(out)
        with translated("sending"):
            async with asyncio.timeout(RPC_TIMEOUT_S):
                published = await self._publishing.publish(ready, within=RPC_TIMEOUT_S)
        if published is not Published.CONFIRMED:
            raise RabbitAway(f"the request was {published.value}")

    async def receive(self, message: DeliveredMessage) -> None:
        """The consumer's callback. Answers to nothing that is asked now are dropped."""
        waiting = self._waiting.get(message.header.properties.correlation_id or "")
        if waiting and not waiting.done():
            waiting.set_result(message.body)


@asynccontextmanager
async def open_rpc_client(settings: Settings, queue: str) -> AsyncIterator[RpcClient]:
    """A mailbox on an exclusive queue of that name. Raises RabbitAway."""
    url = settings.rabbitmq.url.get_secret_value()
    async with connected(url, f"mailbox {queue}", settings.rabbitmq.heartbeat_seconds) as raw:
        with translated("opening a mailbox"):
            box = RpcClient(PublishTap(await open_channel(raw, confirms=True)), queue)
            receiving = await open_channel(raw, confirms=False)
            await receiving.queue_declare(queue, exclusive=True, auto_delete=True, timeout=RPC_TIMEOUT_S)
            await receiving.basic_consume(queue, box.receive, no_ack=True, timeout=RPC_TIMEOUT_S)
        yield box
