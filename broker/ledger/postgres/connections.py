"""Connections to PostgreSQL on which every call has a time limit. A `LazyConnection` serves one call at a time.

A failure is either the row's own (RowRefused) or the connection's (LedgerAway, and the connection is cut). An error
that is not clearly the row's own counts as LedgerAway, so that its work waits instead of being lost. No retries here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from broker.errors import LedgerAway
from broker.ledger.model import RowRefused
from broker.ledger.postgres.reachability import Availability

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:  # the class is generic for the type checker only
    Connection = asyncpg.Connection

T = TypeVar("T")

# Classes of SQLSTATE that a single row can cause: data, constraint, rollback, program limit.
ROW_CLASSES = frozenset({"22", "23", "40", "54"})
LOCK_NOT_AVAILABLE = "55P03"
CLIENT_MARGIN_S = 1.0
"""How much longer than PostgreSQL's own statement_timeout the client waits: PostgreSQL answers first unless it hangs."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where PostgreSQL is (`dsn` is secret) and how long one call may take there, in seconds."""

    dsn: str
    timeout_s: float

    def __repr__(self) -> str:
        return f"Server(timeout_s={self.timeout_s})"

    async def connect(self) -> Connection:
        """A connection with a time limit for every statement, every lock and every idle transaction."""
        milliseconds = str(int(self.timeout_s * 1000))
        return await asyncpg.connect(
            self.dsn.replace("postgresql+asyncpg://", "postgresql://", 1),
            timeout=self.timeout_s,
            server_settings={
                "application_name": "jobnet-broker",
                "statement_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
                # Shorter than the statement's limit: a row that another transaction has locked then fails alone,
                # not together with its whole batch.
                "lock_timeout": str(int(min(self.timeout_s / 3, 2) * 1000)),
                "default_transaction_isolation": "read committed",
                "timezone": "UTC",
            },
        )


class LazyConnection:
    """One connection, made at its first use and cut after any failure that is not the row's own."""

    def __init__(self, server: Server, availability: Availability) -> None:
        self._server = server
        self._availability = availability
        self._connection: Connection | None = None
        self._in_use = asyncio.Lock()

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """What `work` returns. Raises RowRefused, or LedgerAway at most a second after the server's time limit."""
        async with self._in_use:
            try:
                async with asyncio.timeout(self._server.timeout_s + CLIENT_MARGIN_S):
                    return await work(await self._connected())
            except Exception as error:
                if (sqlstate := row_fault(error)) is not None:
                    # The original error may quote the row, so it is not chained.
                    raise RowRefused(sqlstate) from None
                self.cut()
                if not is_foreign(error):
                    raise
                self._availability.lost(error)
                raise LedgerAway(f"PostgreSQL cannot be reached ({type(error).__name__})") from error
            except BaseException:
                self.cut()
                raise

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._server.connect()
        return self._connection

    def cut(self) -> None:
        """Drop the connection without a goodbye: the server may be hanging."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Close gracefully within a second, else terminate."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=CLIENT_MARGIN_S)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()


class Pool:
    """A few connections for the calls that are not batched; a call waits for a free one, at most its own time limit."""

    def __init__(self, server: Server, availability: Availability, count: int) -> None:
        self._all = [LazyConnection(server, availability) for _ in range(count)]
        self._free: asyncio.LifoQueue[LazyConnection] = asyncio.LifoQueue()
        self._timeout_s = server.timeout_s
        for connection in self._all:
            self._free.put_nowait(connection)

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """As LazyConnection.run, on a free connection."""
        async with self._taken() as connection:
            return await connection.run(work)

    @contextlib.asynccontextmanager
    async def _taken(self) -> AsyncIterator[LazyConnection]:
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._free.get()
        except TimeoutError:
            raise LedgerAway("every connection to PostgreSQL is taken") from None
        try:
            yield connection
        finally:
            self._free.put_nowait(connection)

    async def close(self) -> None:
        for connection in self._all:
            await connection.close()


def row_fault(error: BaseException) -> str | None:
    """The SQLSTATE if the row itself caused the error; 22023 for a value that the driver could not even encode."""
    if isinstance(error, asyncpg.DataError) or type(error).__name__ == "DataError":
        return getattr(error, "sqlstate", None) or "22023"
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state if state[:2] in ROW_CLASSES or state == LOCK_NOT_AVAILABLE else None
    return None


def is_foreign(error: BaseException) -> bool:
    """Whether the error came from the connection or from PostgreSQL, not from a bug in this program."""
    foreign = (
        OSError,
        TimeoutError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    )
    return isinstance(error, foreign)
