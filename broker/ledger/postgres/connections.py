"""Connections to PostgreSQL on which every call has a time limit. A `LazyConnection` serves one call at a time.

The SQLSTATE decides whose fault a failure is. Classes 22, 23 and 54 are the row's own (RowRefused). Class 40 and a row
that another transaction has locked pass by themselves (RowBusy). Everything else is the ledger's (LedgerAway): its work
waits instead of being lost, and the connection is cut. No retries here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from broker.errors import LedgerAway
from broker.ledger.model import RowBusy, RowRefused
from broker.ledger.postgres.reachability import Availability

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:  # the class is generic for the type checker only
    Connection = asyncpg.Connection

T = TypeVar("T")

# Classes of SQLSTATE that only the row itself can cause: data, constraint, program limit.
ROW_CLASSES = frozenset({"22", "23", "54"})
ROLLBACK_CLASS = "40"
LOCK_NOT_AVAILABLE = "55P03"
# A locked row delays its own work; a lock on one of these tables stops the work of everybody.
TABLES = ("requests", "reports", "attempts", "attempt_results", "lanes", "workers")
TABLE_LOCKED = """
SELECT EXISTS (
    SELECT FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
    WHERE l.locktype = 'relation' AND l.pid <> pg_backend_pid()
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        AND c.relname = ANY($1::text[]) AND c.relnamespace = to_regnamespace(current_schema()))
"""
"""Also true while such a lock is only waited for: every later statement on that table queues behind it."""
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
        """What `work` returns. Raises RowRefused, RowBusy, or LedgerAway soon after the server's time limit."""
        async with self._in_use:
            try:
                async with asyncio.timeout(self._server.timeout_s + CLIENT_MARGIN_S):
                    return await work(await self._connected())
            except Exception as error:
                # The original error may quote the row, so it is not chained.
                if (sqlstate := row_fault(error)) is not None:
                    raise RowRefused(sqlstate) from None
                if (sqlstate := passing(error)) is not None:
                    if sqlstate == LOCK_NOT_AVAILABLE and await self._is_table_locked():
                        self._availability.lost(error)
                        raise LedgerAway(f"tables of the ledger are locked (SQLSTATE {sqlstate})") from None
                    raise RowBusy(sqlstate) from None
                self.cut()
                if not is_foreign(error):
                    raise
                self._availability.lost(error)
                raise LedgerAway(f"PostgreSQL cannot be reached ({type(error).__name__})") from error
            except BaseException:
                self.cut()
                raise

    async def is_table_locked(self) -> bool:
        """Whether writes to the ledger's tables wait for a lock on a whole table. Raises LedgerAway."""
        return bool(await self.run(lambda connection: connection.fetchval(TABLE_LOCKED, TABLES)))

    async def _is_table_locked(self) -> bool:
        """The same after a failed statement; without an answer the lock counts as the row's, and is tried again."""
        try:
            async with asyncio.timeout(self._server.timeout_s):
                return bool(await (await self._connected()).fetchval(TABLE_LOCKED, TABLES))
        except Exception:
            self.cut()
            return False

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
        return state if state[:2] in ROW_CLASSES else None
    return None


def passing(error: BaseException) -> str | None:
    """The SQLSTATE of an error that passes by itself: deadlock, serialization failure, a lock held too long."""
    state = (error.sqlstate or "") if isinstance(error, asyncpg.PostgresError) else ""
    return state if state[:2] == ROLLBACK_CLASS or state == LOCK_NOT_AVAILABLE else None


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
