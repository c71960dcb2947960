"""Connections to RabbitMQ: supervised ones that come back for ever, and short ones for a question.

Plain connections with our own reconnect: the library's robust ones take healthy queues down with a sick one
and know no backoff (rabbitmq.md 3, #1, 3, 4, 13, 19, 20). What the libraries raise becomes RabbitAway here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import structlog
from aio_pika.abc import AbstractConnection as Convenient
from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelClosed
from pamqp.commands import Queue

from broker.errors import BrokerError, RabbitAway
from broker.rabbitmq.properties import guard_decoding
from broker.rabbitmq.transport import open_streamed
from broker.tasks import cancel_and_wait
from config.sections import RabbitmqSettings

CONNECT_TIMEOUT_S = 10.0
RPC_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 5.0

Channel: TypeAlias = AbstractChannel
Connection: TypeAlias = AbstractConnection

log = structlog.get_logger(__name__)
T = TypeVar("T")

# Their lines and exceptions show whole frames, bodies included (DESIGN 9); ours say what happened.
for library in ("aiormq", "aio_pika"):
    logging.getLogger(library).setLevel(logging.CRITICAL + 1)
guard_decoding()


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """RabbitAway for whatever the libraries raise, chained.

    A lost connection cancels the futures of its users: a CancelledError that nobody asked for is no order.
    """
    try:
        yield
    except asyncio.CancelledError as error:
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


async def quietly(closing: Awaitable[Any]) -> None:
    """Close something that may be gone already."""
    with suppress(RabbitAway), translated("closing"):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await closing


async def first_of(*awaitables: Awaitable[Any]) -> None:
    """Return when one of them is done; raise nothing of theirs, and leave none behind."""
    futures = [asyncio.ensure_future(a) for a in awaitables]
    try:
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in futures:
            future.cancel()


class Backoff:
    """Growing pauses with full jitter, between the two bounds of the settings."""

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


async def open_connection(url: str, name: str, heartbeat: int) -> Convenient:
    """A plain connection with a name that operators see. Raises RabbitAway."""
    with translated("connecting"):
        return await open_streamed(
            url,
            timeout=CONNECT_TIMEOUT_S,
            heartbeat=heartbeat,
            client_properties={"connection_name": name},
        )


def under(connection: Convenient) -> Connection:
    """aio-pika's own connection below its conveniences, where consuming and publishing cost a third less."""
    if connection.transport is None:
        raise RabbitAway("the connection is closed")
    return connection.transport.connection


async def open_channel(raw: Connection, *, confirms: bool) -> Channel:
    async with asyncio.timeout(RPC_TIMEOUT_S):  # it hangs on a connection that an alarm has blocked
        return await raw.channel(publisher_confirms=confirms, on_return_raises=True)


class Link:
    """One connection, kept up for ever by a task of its own."""

    def __init__(self, settings: RabbitmqSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._connection: Convenient | None = None
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self.problem = "not tried yet"

    @property
    def connected(self) -> bool:
        return self._up.is_set() and self._connection is not None and under(self._connection).is_opened

    async def raw(self) -> Connection:
        """The current connection; waits while there is none."""
        while True:
            await self._up.wait()
            if self._connection is not None:
                return under(self._connection)

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        if self._keeper:
            await cancel_and_wait([self._keeper])
        if self._connection:
            await quietly(self._connection.close())

    async def _keep(self) -> None:
        backoff = Backoff(self._settings)
        while True:
            began = time.monotonic()
            try:
                await self._live()
            except RabbitAway as error:
                self.problem = f"{error!s:.300}"
            log.warning("connection-lost", connection=self._name, reason=self.problem)
            if time.monotonic() - began > self._settings.reconnect_max_seconds:
                backoff.reset()
            await backoff.pause()

    async def _live(self) -> None:
        """From connecting to the loss of the connection."""
        url = self._settings.url.get_secret_value()
        self._connection = await open_connection(url, self._name, self._settings.heartbeat_seconds)
        closing = under(self._connection).closing
        closing.add_done_callback(lambda _: self._up.clear())
        self._up.set()
        log.info("connected", connection=self._name)
        await asyncio.wait([closing])
        error = None if closing.cancelled() else closing.exception()
        raise RabbitAway(f"{type(error).__name__} {error!s:.200}")


class DeclareRefused(BrokerError):
    """RabbitMQ said no to a question or a declaration; the text is its own."""


@asynccontextmanager
async def connected(url: str, name: str, heartbeat: int = 20) -> AsyncIterator[Connection]:
    """A connection for a short while, not supervised. Raises RabbitAway."""
    connection = await open_connection(url, name, heartbeat)
    try:
        yield under(connection)
    finally:
        await quietly(connection.close())


async def asked(raw: Connection, ask: Callable[[Channel], Awaitable[T]]) -> T:
    """One question on a channel of its own, since a no closes it. Raises Asked for a no, RabbitAway."""
    with translated("asking"):
        channel = await open_channel(raw, confirms=False)
        try:
            async with asyncio.timeout(RPC_TIMEOUT_S):
                return await ask(channel)
        except ChannelClosed as error:
            raise DeclareRefused(f"{error!s:.500}") from error
        finally:
            await quietly(channel.close())


async def depth(raw: Connection, queue: str) -> int:
    """Messages ready in the queue. Raises Asked when it does not exist, RabbitAway."""

    async def look(channel: Channel) -> int:
        found = await channel.queue_declare(queue, passive=True)
        assert isinstance(found, Queue.DeclareOk)  # noqa: S101  the answer to this question
        return found.message_count or 0

    return await asked(raw, look)
