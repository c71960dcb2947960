"""Group commit: concurrent calls are batched into one transaction; one transaction for each costs a hundred times more.

Knows nothing of the rows. The number of waiting calls is bounded by the callers: each message in flight makes one call
at a time, and the prefetch bounds the messages. What a batch commits must be safe to repeat: after a connection is
lost during COMMIT, nothing tells whether the transaction was committed.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar
from uuid import UUID

import asyncpg

from broker.errors import LedgerAway
from broker.ledger.model import RowBusy
from broker.ledger.postgres.connections import Connection
from broker.ledger.postgres.reachability import Availability
from broker.telemetry.counters import COUNTERS

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

BUSY_FIRST_S, BUSY_MOST_S = 0.05, 5.0
"""Pause before a busy row is tried again: doubled each time. lock_timeout bounds each try."""


@dataclass(slots=True, eq=False)
class _Waiting(Generic[ItemT, ResultT]):
    item: ItemT
    future: asyncio.Future[ResultT]
    busy: int = 0
    """How often another transaction was in the way."""

    def end(self, result: ResultT | Exception) -> None:
        if self.future.done():
            return  # its caller was cancelled
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class GroupCommit(Generic[ItemT, ResultT]):
    """One flush at a time; calls that come meanwhile are the next batch. `flush` gives a result or error per item."""

    def __init__(
        self,
        flush: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT | Exception]]],
        availability: Availability,
        *,
        most: int,
        linger_s: float,
        what: str = "rows",
    ) -> None:
        """`most`: items in a batch. `what`: the label of the batches in the metrics."""
        self._flush = flush
        self._availability = availability
        self._most = most
        self._linger_s = linger_s
        self._what = what
        self._waiting: deque[_Waiting[ItemT, ResultT]] = deque()
        self._current: list[_Waiting[ItemT, ResultT]] = []
        self._postponed: set[_Waiting[ItemT, ResultT]] = set()
        self._closed = False
        self._size = 0
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def submit(self, item: ItemT) -> ResultT:
        """The result once it is committed, however long PostgreSQL is away or the row is locked. Raises RowRefused.

        Raises LedgerAway only when `run` ends before that.
        """
        if self._closed:
            raise LedgerAway("the ledger is closed")
        waiting: _Waiting[ItemT, ResultT] = _Waiting(item, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._filled.set()
        self._idle.clear()
        return await waiting.future

    async def run(self) -> None:
        """Commit what is submitted, until cancelled; to be run as one task."""
        try:
            while True:
                await self._filled.wait()
                await self._linger()
                self._current = self._take()
                began = monotonic()
                busy = await self._together(self._current)
                for waiting in busy:
                    self._postpone(waiting)
                self._size = len(self._current) - len(busy)
                if self._size:
                    COUNTERS.committed(self._what, self._size, began)
                self._current = []
                if not self._waiting and not self._postponed:
                    self._idle.set()
        finally:
            self._close()

    async def _linger(self) -> None:
        """Wait for more items, only under load; a single item is committed at once."""
        if self._size > 1 or len(self._waiting) > 1:
            await asyncio.sleep(self._linger_s)

    def _close(self) -> None:
        """Fail every call that waits: what is not known to be committed may have been."""
        self._closed = True
        for waiting in (*self._current, *self._waiting, *self._postponed):
            waiting.end(LedgerAway("the ledger is closed"))

    async def drained(self) -> None:
        """Wait until everything submitted so far is committed."""
        await self._idle.wait()

    def _take(self) -> list[_Waiting[ItemT, ResultT]]:
        """The next batch. A row that was busy is tried alone, so that it delays no other."""
        batch = [self._waiting.popleft()]
        while self._waiting and len(batch) < self._most and not (batch[0].busy or self._waiting[0].busy):
            batch.append(self._waiting.popleft())
        if not self._waiting:
            self._filled.clear()
        return batch

    def _postpone(self, waiting: _Waiting[ItemT, ResultT]) -> None:
        """Try a busy row again after a pause; meanwhile the others are committed."""
        pause_s = min(BUSY_MOST_S, BUSY_FIRST_S * 2 ** min(waiting.busy, 10))
        waiting.busy += 1
        self._postponed.add(waiting)
        pause_s *= random.uniform(0.5, 1)  # noqa: S311  spreads retries, guards nothing
        asyncio.get_running_loop().call_later(pause_s, self._resume, waiting)

    def _resume(self, waiting: _Waiting[ItemT, ResultT]) -> None:
        self._postponed.discard(waiting)
        if not self._closed:
            self._waiting.append(waiting)
            self._filled.set()

    async def _together(self, batch: list[_Waiting[ItemT, ResultT]]) -> list[_Waiting[ItemT, ResultT]]:
        """Commit the batch, however long PostgreSQL is away. Returns the rows that another transaction keeps busy.

        An error of a row splits the batch into single rows; a lost connection repeats it whole.
        """
        tries = 0
        try:
            while batch := [waiting for waiting in batch if not waiting.future.done()]:
                try:
                    results = await self._flush([waiting.item for waiting in batch])
                except RowBusy:
                    return batch if len(batch) == 1 else await self._one_by_one(batch)
                except LedgerAway:
                    # Away until this very batch is committed: a heartbeat can be committed while it still fails.
                    self._availability.failing(self)
                    await self._availability.wait_until_reached()
                    await asyncio.sleep(min(1.0, 0.02 * 2 ** min(tries := tries + 1, 10)))
                except Exception as error:
                    if len(batch) > 1:
                        return await self._one_by_one(batch)
                    batch[0].end(error)
                else:
                    for waiting, result in zip(batch, results, strict=True):
                        waiting.end(result)
            return []
        finally:
            if tries:
                self._availability.working(self)

    async def _one_by_one(self, batch: list[_Waiting[ItemT, ResultT]]) -> list[_Waiting[ItemT, ResultT]]:
        return [busy for waiting in batch for busy in await self._together([waiting])]


async def committed_earlier(
    connection: Connection, statement: str, missing: Sequence[tuple[UUID, UUID]]
) -> dict[UUID, asyncpg.Record]:
    """Rows that an earlier try of this batch has committed, by token. `missing`: (row id, token) without a row so far.

    `statement` takes the ids as $1 and the tokens as $2 and returns the column `token`.
    """
    if not missing:
        return {}
    ids, tokens = [row_id for row_id, _ in missing], [token for _, token in missing]
    return {row["token"]: row for row in await connection.fetch(statement, ids, tokens)}
