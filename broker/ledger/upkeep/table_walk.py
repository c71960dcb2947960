"""Processes a whole table while brokers run: page by page in key order, each page a short transaction.

A page has a bounded size, so the table may be large; an interrupted walk is started again from the beginning. Uses a
connection of its own, so that no other work waits behind it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar
from uuid import UUID

from broker.ledger.model import RowBusy
from broker.ledger.postgres.connections import Connection, LazyConnection, Server
from broker.ledger.postgres.reachability import Availability
from broker.telemetry.log import get_logger

log = get_logger("ledger.upkeep")

T = TypeVar("T")
RowKey = UUID | int | datetime
FIRST_UUID = UUID(int=0)
FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)

PAGE = """
SELECT high, (SELECT {key} FROM {table} WHERE {key} > high ORDER BY {key} LIMIT 1) AS next FROM (
    SELECT {key} AS high FROM (SELECT {key} FROM {table} WHERE {key} >= $1 ORDER BY {key} LIMIT $2) AS page
    ORDER BY {key} DESC LIMIT 1) AS last_row
"""


@dataclass(frozen=True, slots=True)
class Page:
    """The rows with keys from `low` to `high`, both included."""

    low: RowKey
    high: RowKey


class Walk:
    """A walk with its connection. All calls raise LedgerAway."""

    def __init__(self, server: Server) -> None:
        self._connection = LazyConnection(server, Availability(quiet=True))

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """As LazyConnection.run."""
        return await self._connection.run(work)

    async def try_lock(self, lock: int) -> bool:
        """Try to take an advisory lock; it is held until the connection ends."""
        return bool(await self.run(lambda c: c.fetchval("SELECT pg_try_advisory_lock($1)", lock)))

    async def pages(self, table: str, key: str, size: int, *, first: RowKey) -> AsyncIterator[Page]:
        """The table in pages of `size` rows (more only if rows share one key). `table` and `key` are trusted names."""
        statement = PAGE.format(table=table, key=key)
        low: RowKey | None = first
        while low is not None:
            row = await self.run(partial(_page, statement, low, size))
            if row is None:
                return
            yield Page(low, row[0])
            low = row[1]

    async def try_run(self, work: Callable[[Connection], Awaitable[T]], default: T) -> T:
        """The result of `work`, or `default` if another transaction has locked its rows; the next walk tries again."""
        try:
            return await self.run(work)
        except RowBusy as busy:
            log.warning("page-skipped", reason=str(busy))
            return default

    async def close(self) -> None:
        await self._connection.close()


async def _page(
    statement: str, low: RowKey, size: int, connection: Connection
) -> tuple[RowKey, RowKey | None] | None:
    row = await connection.fetchrow(statement, low, size)
    return (row["high"], row["next"]) if row else None


@asynccontextmanager
async def open_walk(server: Server) -> AsyncIterator[Walk]:
    """A walk whose connection is closed at the end of the block."""
    walk = Walk(server)
    try:
        yield walk
    finally:
        await walk.close()
