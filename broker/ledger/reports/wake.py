"""Waiting for a report to fall due: woken by PostgreSQL's NOTIFY and by this process itself.

A comfort only. What is due is found by looking, each tick; a lost connection here costs a tick and no report.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from broker.ledger.postgres.connections import Connection, Server, is_foreign
from broker.ledger.postgres.reachability import Availability
from broker.ledger.reports.new_reports import CHANNEL


class Wake:
    """One connection beside the pool, made at the first wait and again when it is lost."""

    def __init__(self, target: Server, reach: Availability) -> None:
        self._target = target
        self._reach = reach
        self._connection: Connection | None = None
        self._due = asyncio.Event()

    def set(self, *_: Any) -> None:
        """Something may be due."""
        self._due.set()

    async def wait(self, timeout_s: float) -> None:
        """Until something may be due, at most so long. Never raises."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._listen()
                await self._due.wait()
        self._due.clear()

    async def _listen(self) -> None:
        if self._reach.away or (self._connection is not None and not self._connection.is_closed()):
            return
        try:
            self._connection = await self._target.connect()
            await self._connection.add_listener(CHANNEL, self.set)
        except Exception as error:
            await self.close()
            if not is_foreign(error):
                raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
