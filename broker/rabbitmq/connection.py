"""Connections to RabbitMQ: supervised ones that reconnect without end, and temporary ones.

Plain connections with our own reconnect, because the library's robust ones have no backoff and lose healthy queues with
a broken one (docs/rabbitmq.md#t3, docs/rabbitmq.md#t4). The libraries' exceptions become RabbitAway here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

from aio_pika.abc import AbstractConnection as AioPikaConnection
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelClosed
from pamqp.commands import Queue

from broker.errors import BrokerError, RabbitAway
from broker.rabbitmq.properties import guard_decoding
from broker.rabbitmq.transport import open_with_transport
from broker.tasks import cancel_and_wait
from broker.telemetry.log import get_logger
from config.sections import RabbitmqSettings

CONNECT_TIMEOUT_S = 10.0
RPC_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 5.0

Channel: TypeAlias = AbstractChannel
Connection: TypeAlias = AbstractConnection

log = get_logger("rabbitmq.connection")
T = TypeVar("T")

# The libraries log whole frames, bodies included (docs/privacy.md#logs). The broker logs what happened itself.
for library in ("aiormq", "aio_pika"):
    logging.getLogger(library).setLevel(logging.CRITICAL + 1)
guard_decoding()


@contextmanager
def translate_errors(doing: str) -> Iterator[None]:
    """Raise RabbitAway for every exception of the libraries, with the cause chained."""
    try:
        yield
    except asyncio.CancelledError as error:
        # A lost connection cancels the futures that wait for it. Only a cancellation of the task itself is passed on.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RabbitAway(f"{doing}: the connection was lost") from error
    except BrokerError:
        raise
    except TimeoutError as error:
        raise RabbitAway(f"{doing}: no answer in time") from error
    except Exception as error:
        raise RabbitAway(f"{doing}: {type(error).__name__} {error!s:.200}") from error


async def close_quietly(closing: Awaitable[Any]) -> None:
    """Await `closing` within a bound and ignore its errors: the thing may be closed already."""
    with suppress(RabbitAway), translate_errors("closing"):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await closing


async def wait_for_first(*awaitables: Awaitable[Any]) -> None:
    """Return when one of them is done, and cancel the others. Their exceptions are not raised."""
    futures = [asyncio.ensure_future(a) for a in awaitables]
    try:
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in futures:
            future.cancel()


class Backoff:
    """Growing pauses with full jitter, between `reconnect_min_seconds` and `reconnect_max_seconds`."""

    def __init__(self, settings: RabbitmqSettings) -> None:
        self._min, self._max = settings.reconnect_min_seconds, settings.reconnect_max_seconds
        self._tries = 0

    def reset(self) -> None:
        self._tries = 0

    def next(self) -> float:
        """Seconds until the next try."""
        self._tries = min(self._tries + 1, 32)
        longest = min(self._max, self._min * 2**self._tries)
        return random.uniform(min(self._min, longest), longest)  # noqa: S311 - jitter, not a secret

    async def pause(self) -> None:
        await asyncio.sleep(self.next())


async def open_connection(url: str, name: str, heartbeat: int) -> AioPikaConnection:
    """Open a plain connection. RabbitMQ's management shows `name`. Raises RabbitAway."""
    with translate_errors("connecting"):
        return await open_with_transport(
            url,
            timeout=CONNECT_TIMEOUT_S,
            heartbeat=heartbeat,
            client_properties={"connection_name": name},
        )


def aiormq_connection(connection: AioPikaConnection) -> Connection:
    """The aiormq connection below an aio-pika connection. Raises RabbitAway."""
    # Consuming and publishing on it cost a third less.
    if connection.transport is None:
        raise RabbitAway("the connection is closed")
    return connection.transport.connection


async def open_channel(connection: Connection, *, confirms: bool) -> Channel:
    """Open a channel, with publisher confirms or without. Raises TimeoutError."""
    # The library waits without end on a connection that an alarm has blocked (docs/rabbitmq.md#t19).
    async with asyncio.timeout(RPC_TIMEOUT_S):
        return await connection.channel(publisher_confirms=confirms, on_return_raises=True)


class SupervisedConnection:
    """One connection with a task that reconnects it without end."""

    def __init__(self, settings: RabbitmqSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._connection: AioPikaConnection | None = None
        self._connected = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self.problem = "not tried yet"

    @property
    def connected(self) -> bool:
        return (
            self._connected.is_set()
            and self._connection is not None
            and aiormq_connection(self._connection).is_opened
        )

    async def current(self) -> Connection:
        """The current connection; waits while there is none."""
        while True:
            await self._connected.wait()
            if self._connection is not None:
                return aiormq_connection(self._connection)

    def start(self) -> None:
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        if self._supervisor:
            await cancel_and_wait([self._supervisor])
        if self._connection:
            await close_quietly(self._connection.close())

    async def _supervise(self) -> None:
        backoff = Backoff(self._settings)
        while True:
            began = time.monotonic()
            try:
                await self._connect_until_lost()
            except RabbitAway as error:
                self.problem = f"{error!s:.300}"
            log.warning("connection-lost", connection=self._name, reason=self.problem)
            if time.monotonic() - began > self._settings.reconnect_max_seconds:
                backoff.reset()
            await backoff.pause()

    async def _connect_until_lost(self) -> None:
        """Connect and wait for the loss of the connection. Always raises RabbitAway."""
        url = self._settings.url.get_secret_value()
        self._connection = await open_connection(url, self._name, self._settings.heartbeat_seconds)
        closing = aiormq_connection(self._connection).closing
        closing.add_done_callback(lambda _: self._connected.clear())
        self._connected.set()
        log.info("connected", connection=self._name)
        await asyncio.wait([closing])
        error = None if closing.cancelled() else closing.exception()
        raise RabbitAway(f"{type(error).__name__} {error!s:.200}")


class DeclareRefused(BrokerError):
    """RabbitMQ refused a declaration or a passive look-up. The text is RabbitMQ's own."""


@asynccontextmanager
async def temporary_connection(url: str, name: str, heartbeat: int = 20) -> AsyncIterator[Connection]:
    """A connection for one block, not supervised. Raises RabbitAway."""
    connection = await open_connection(url, name, heartbeat)
    try:
        yield aiormq_connection(connection)
    finally:
        await close_quietly(connection.close())


async def on_own_channel(connection: Connection, action: Callable[[Channel], Awaitable[T]]) -> T:
    """Run `action` on a channel of its own, because a refusal closes the channel. Raises DeclareRefused, RabbitAway."""
    with translate_errors("asking"):
        channel = await open_channel(connection, confirms=False)
        try:
            async with asyncio.timeout(RPC_TIMEOUT_S):
                return await action(channel)
        except ChannelClosed as error:
            raise DeclareRefused(f"{error!s:.500}") from error
        finally:
            await close_quietly(channel.close())


async def queue_depth(connection: Connection, queue: str) -> int:
    """Messages ready in the queue. Raises DeclareRefused when it does not exist, RabbitAway."""

    async def look_up(channel: Channel) -> int:
        answer = await channel.queue_declare(queue, passive=True)
        assert isinstance(answer, Queue.DeclareOk)  # noqa: S101 - the only answer that is no exception
        return answer.message_count or 0

    return await on_own_channel(connection, look_up)
