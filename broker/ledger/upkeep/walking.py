"""A way through a whole table beside running brokers: page after page by key, each page a short transaction.

What is looked at in one step is bounded, whatever the table has grown to, and a walk that was cut off is simply
begun again. Opens its own connection, so that nobody waits in line behind it. Knows nothing of what is done there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar
from uuid import UUID

from broker.ledger.model import RowRefused
from broker.ledger.postgres.connections import Connection, LazyConnection, Server
from broker.ledger.postgres.reachability import Availability
from broker.telemetry.log import get_logger

log = get_logger("ledger.walking")

T = TypeVar("T")
RowKey = UUID | int | datetime
FIRST_UUID = UUID(int=0)
FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)

PAGE = """
SELECT high, (SELECT {key} FROM {table} WHERE {key} > high ORDER BY {key} LIMIT 1) AS next FROM (
    SELECT {key} AS high FROM (SELECT {key} FROM {table} WHERE {key} >= $1 ORDER BY {key} LIMIT $2) AS page
    ORDER BY {key} DESC LIMIT 1) AS its_end
"""


@dataclass(frozen=True, slots=True)
class Page:
    """Rows whose keys are between these two, both included."""

    low: RowKey
    high: RowKey


class Walk:
    """One connection of its own for a walk. All raise LedgerAway; close it by `walking`."""

    def __init__(self, target: Server) -> None:
        self._line = LazyConnection(target, Availability())

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """As Line.run."""
        return await self._line.run(work)

    async def only_one(self, lock: int) -> bool:
        """Whether this walk has the advisory lock now; it holds it as long as its connection lives."""
        return bool(await self.run(lambda c: c.fetchval("SELECT pg_try_advisory_lock($1)", lock)))

    async def pages(self, table: str, key: str, size: int, *, first: RowKey) -> AsyncIterator[Page]:
        """The table in pages of `size` rows (more only if they share one key), as they are found on the way."""
        statement = PAGE.format(table=table, key=key)  # our own names only
        low: RowKey | None = first
        while low is not None:
            row = await self.run(partial(_page, statement, low, size))
            if row is None:
                return
            yield Page(low, row[0])
            low = row[1]

    async def try_run(self, work: Callable[[Connection], Awaitable[T]], default: T) -> T:
        """`work`, or `default` if somebody else holds its rows: they are taken on the next walk."""
        try:
            return await self.run(work)
        except RowRefused as refused:
            if not refused.passing:
                raise
            log.warning("page-left-out", reason=str(refused))
            return default

    async def close(self) -> None:
        await self._line.close()


async def _page(
    statement: str, low: RowKey, size: int, connection: Connection
) -> tuple[RowKey, RowKey | None] | None:
    row = await connection.fetchrow(statement, low, size)
    return (row["high"], row["next"]) if row else None


@asynccontextmanager
async def walking(target: Server) -> AsyncIterator[Walk]:
    """A walk, and its connection let go."""
    walk = Walk(target)
    try:
        yield walk
    finally:
        await walk.close()
