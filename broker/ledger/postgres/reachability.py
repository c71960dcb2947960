"""Whether PostgreSQL can be reached, as one fact for the whole process.

Any work that fails on its connection says `lost`; only a committed heartbeat says `found`. Judges nobody's
life.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.telemetry.log import get_logger

log = get_logger("ledger.reach")


class Availability:
    """`away`, two ways to wait for its change, and callbacks for who must act on it."""

    def __init__(self) -> None:
        self.on_away: list[Callable[[], None]] = []
        self.on_back: list[Callable[[], None]] = []
        self.nudged = asyncio.Event()
        self._back = asyncio.Event()
        self._gone = asyncio.Event()
        self._back.set()

    @property
    def away(self) -> bool:
        return self._gone.is_set()

    def lost(self, error: BaseException) -> None:
        """A connection failed. The heartbeat looks at once whether PostgreSQL is still there."""
        self.nudged.set()
        if self.away:
            return
        log.warning("ledger-away", reason=getattr(error, "sqlstate", None) or type(error).__name__)
        self._gone.set()
        self._back.clear()
        for tell in self.on_away:
            tell()

    def found(self) -> None:
        """A heartbeat was committed."""
        if not self.away:
            return
        log.info("ledger-back")
        self._gone.clear()
        self._back.set()
        for tell in self.on_back:
            tell()

    async def wait_until_back(self) -> None:
        await self._back.wait()

    async def wait_until_away(self) -> None:
        await self._gone.wait()
