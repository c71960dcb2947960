"""Whether PostgreSQL can be reached, one fact for the whole process.

Work that fails on its connection calls `lost`; only a committed heartbeat calls `found`. Says nothing about other
processes: see heartbeat.py.
"""

from __future__ import annotations

import asyncio

from broker.telemetry.log import get_logger

log = get_logger("ledger.availability")


class Availability:
    """`away`, and two ways to wait for its change."""

    def __init__(self) -> None:
        self.nudged = asyncio.Event()
        """Set: the next heartbeat is wanted at once."""
        self._back = asyncio.Event()
        self._gone = asyncio.Event()
        self._back.set()

    @property
    def away(self) -> bool:
        """Whether PostgreSQL cannot be reached: consumers pause, the process is not ready."""
        return self._gone.is_set()

    def lost(self, error: BaseException) -> None:
        """A connection failed. The next heartbeat follows at once and finds out whether PostgreSQL is still there."""
        self.nudged.set()
        if self.away:
            return
        log.warning("ledger-away", reason=getattr(error, "sqlstate", None) or type(error).__name__)
        self._gone.set()
        self._back.clear()

    def found(self) -> None:
        """A heartbeat was committed."""
        if not self.away:
            return
        log.info("ledger-back")
        self._gone.clear()
        self._back.set()

    async def wait_until_back(self) -> None:
        """Returns at once while PostgreSQL can be reached."""
        await self._back.wait()

    async def wait_until_away(self) -> None:
        """Returns at once while PostgreSQL cannot be reached."""
        await self._gone.wait()
