"""Connections to PostgreSQL that never hang: one `LazyConnection` is one connection, used by one at a time.

A failure is either a row's (RowRefused) or the connection's (LedgerAway, and the line is cut at once); what
is not known to be a row's own fault counts as the ledger being away, so that it waits instead of being lost.
No retries here.
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

# Data, constraint, rollback, limit: the classes of SQLSTATE that one row can bring upon itself.
ROW_CLASSES = frozenset({"22", "23", "40", "54"})
LOCK_NOT_AVAILABLE = "55P03"
CLIENT_MARGIN_S = 1.0
"""How much longer than PostgreSQL itself we wait for a statement: it answers first unless it hangs."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where PostgreSQL is (`dsn` is secret) and how long one piece of work may take there, in seconds."""

    dsn: str
    timeout_s: float

    def __repr__(self) -> str:
        return f"Target(timeout_s={self.timeout_s})"

    async def connect(self) -> Connection:
        """A connection on which every statement, lock and idle transaction has an end."""
        milliseconds = str(int(self.timeout_s * 1000))
        return await asyncpg.connect(
            self.dsn.replace("postgresql+asyncpg://", "postgresql://", 1),
            timeout=self.timeout_s,
            server_settings={
                "application_name": "jobnet-broker",
                "statement_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
                # Shorter, so that one row locked by somebody else fails alone and not with its whole batch.
                "lock_timeout": str(int(min(self.timeout_s / 3, 2) * 1000)),
                "default_transaction_isolation": "read committed",
                "timezone": "UTC",
            },
        )


class LazyConnection:
    """One connection, made when needed and cut on any doubt."""

    def __init__(self, target: Server, reach: Availability) -> None:
        self._target = target
        self._reach = reach
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """What `work` returns. Raises RowRefused, or LedgerAway a second after the target's time."""
        async with self._turn:
            try:
                async with asyncio.timeout(self._target.timeout_s + CLIENT_MARGIN_S):
                    return await work(await self._connected())
            except Exception as error:
                if (sqlstate := row_fault(error)) is not None:
                    raise RowRefused(sqlstate) from None  # the original may quote the row
                self.cut()
                if not is_foreign(error):
                    raise
                self._reach.lost(error)
                raise LedgerAway(f"PostgreSQL cannot be reached ({type(error).__name__})") from error
            except BaseException:
                self.cut()
                raise

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._target.connect()
        return self._connection

    def cut(self) -> None:
        """Drop the connection without a word to the other side, which may be hanging."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        """Say goodbye if that is quick."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=CLIENT_MARGIN_S)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()


class Pool:
    """A few lines for the calls that are not gathered; a call waits for a free one, at most its own time."""

    def __init__(self, target: Server, reach: Availability, count: int) -> None:
        self._all = [LazyConnection(target, reach) for _ in range(count)]
        self._free: asyncio.LifoQueue[LazyConnection] = asyncio.LifoQueue()
        self._timeout_s = target.timeout_s
        for line in self._all:
            self._free.put_nowait(line)

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """As Line.run."""
        async with self._taken() as line:
            return await line.run(work)

    @contextlib.asynccontextmanager
    async def _taken(self) -> AsyncIterator[LazyConnection]:
        try:
            async with asyncio.timeout(self._timeout_s):
                line = await self._free.get()
        except TimeoutError:
            raise LedgerAway("every connection to PostgreSQL is taken") from None
        try:
            yield line
        finally:
            self._free.put_nowait(line)

    async def close(self) -> None:
        for line in self._all:
            await line.close()


def row_fault(error: BaseException) -> str | None:
    """The SQLSTATE if the row itself is to blame; 22023 stands for what the driver could not even encode."""
    if isinstance(error, asyncpg.DataError) or type(error).__name__ == "DataError":
        return getattr(error, "sqlstate", None) or "22023"
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state if state[:2] in ROW_CLASSES or state == LOCK_NOT_AVAILABLE else None
    return None


def is_foreign(error: BaseException) -> bool:
    """Whether the error came from the connection or from PostgreSQL, and not from a mistake of ours."""
    theirs = (
        OSError,
        TimeoutError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    )
    return isinstance(error, theirs)
