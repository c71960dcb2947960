"""Waits until a report falls due: woken by PostgreSQL's NOTIFY and by this process itself.

Only saves time: the scheduler also looks at every tick, so a lost connection here delays a report by a tick.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from broker.ledger.postgres.connections import Connection, Server, is_foreign
from broker.ledger.postgres.reachability import Availability
from broker.ledger.reports.new_reports import CHANNEL


class Wake:
    """`ledger.reports.wake`: one connection besides the pool, made at the first wait and again when it is lost."""

    def __init__(self, server: Server, availability: Availability) -> None:
        self._server = server
        self._availability = availability
        self._connection: Connection | None = None
        self._due = asyncio.Event()

    def set(self, *_: Any) -> None:
        """A report may be due."""
        self._due.set()

    async def wait(self, timeout_s: float) -> None:
        """Until a report may be due, at most `timeout_s`. Never raises."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._listen()
                await self._due.wait()
        self._due.clear()

    async def _listen(self) -> None:
        if self._availability.away or (self._connection is not None and not self._connection.is_closed()):
            return
        try:
            self._connection = await self._server.connect()
            await self._connection.add_listener(CHANNEL, self.set)
        except Exception as error:
            await self.close()
            if not is_foreign(error):
                raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
