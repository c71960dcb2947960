"""Group commit: calls are gathered and committed together; a transaction for each costs a hundred times more.

Knows nothing of what it commits. The number of waiting calls is bounded by its callers: each arrival makes
one call at a time, and arrivals are bounded by the prefetch. What is committed must be safe to repeat: after
a lost connection nobody knows whether the commit happened.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

from broker.errors import LedgerAway
from broker.ledger.model import RowRefused
from broker.ledger.postgres.reachability import Availability
from broker.telemetry.counters import COUNTERS

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

PASSING_TRIES = 4
"""How often a row is tried that fails for a passing reason; lock_timeout bounds each try."""


@dataclass(slots=True, eq=False)
class _Waiting(Generic[ItemT, ResultT]):
    item: ItemT
    future: asyncio.Future[ResultT]
    failed: RowRefused | None = None

    def end(self, result: ResultT | Exception) -> None:
        if self.future.done():
            return  # its caller was cancelled
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class GroupCommit(Generic[ItemT, ResultT]):
    """One flush at a time; what comes meanwhile is the next batch. `flush` gives a result or error per item."""

    def __init__(
        self,
        flush: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT | Exception]]],
        reach: Availability,
        *,
        most: int,
        linger_s: float,
        what: str = "rows",
    ) -> None:
        """`what` is committed is its name where batches are counted."""
        self._flush = flush
        self._reach = reach
        self._most = most
        self._linger_s = linger_s
        self._what = what
        self._waiting: deque[_Waiting[ItemT, ResultT]] = deque()
        self._current: list[_Waiting[ItemT, ResultT]] = []
        self._closed = False
        self._size = 0
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def submit(self, item: ItemT) -> ResultT:
        """The result once it is committed, however long PostgreSQL is away. Raises RowRefused.

        LedgerAway is raised only when the batcher ends before that.
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
                await self._commit(self._current)
                self._size = len(self._current)
                COUNTERS.committed(self._what, self._size, began)
                self._current = []  # a result that nobody wants must not live on here
                if not self._waiting:
                    self._idle.set()
        finally:
            self._close()

    async def _linger(self) -> None:
        """Wait for company, but only when there was some: alone there is nobody to wait for."""
        if self._size > 1 or len(self._waiting) > 1:
            await asyncio.sleep(self._linger_s)

    def _close(self) -> None:
        """Nobody waits for ever: what is not known to be committed may be, and its caller is told so."""
        self._closed = True
        for waiting in (*self._current, *self._waiting):
            waiting.end(LedgerAway("the ledger is closed"))

    async def drained(self) -> None:
        """Wait until everything submitted so far is committed."""
        await self._idle.wait()

    def _take(self) -> list[_Waiting[ItemT, ResultT]]:
        batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        if not self._waiting:
            self._filled.clear()
        return batch

    async def _commit(self, batch: list[_Waiting[ItemT, ResultT]]) -> None:
        """Commit the batch; rows that fail for a passing reason are tried again after their neighbours."""
        left = await self._together(batch)
        for _ in range(PASSING_TRIES - 1):
            if left:
                await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311  spreads retries, guards nothing
                left = await self._together(left)
        for waiting in left:
            waiting.end(waiting.failed or RowRefused("40000"))

    async def _together(self, batch: list[_Waiting[ItemT, ResultT]]) -> list[_Waiting[ItemT, ResultT]]:
        """One try, repeated only while PostgreSQL is away; returns what may pass a moment later.

        A row's error takes the batch apart, row by row; a lost connection never does.
        """
        tries = 0
        while batch := [waiting for waiting in batch if not waiting.future.done()]:
            try:
                results = await self._flush([waiting.item for waiting in batch])
            except LedgerAway:
                await self._until_back(tries := tries + 1)
            except Exception as error:
                if len(batch) > 1:
                    return [late for waiting in batch for late in await self._together([waiting])]
                if isinstance(error, RowRefused) and error.passing:
                    batch[0].failed = error
                    return batch
                batch[0].end(error)
            else:
                for waiting, result in zip(batch, results, strict=True):
                    waiting.end(result)
        return []

    async def _until_back(self, tries: int) -> None:
        """The pause grows: a heartbeat that passes does not mean that this batch will."""
        await self._reach.wait_until_back()
        await asyncio.sleep(min(1.0, 0.02 * 2 ** min(tries, 10)))
