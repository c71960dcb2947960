"""Whether the ledger does its work, one fact for the whole process.

Work that fails on its connection calls `lost`; only a committed heartbeat calls `found`. A batch that fails again and
again keeps the ledger away although heartbeats are committed: a table can be locked, or its disk full, while the table
of workers is well. Says nothing about other processes: see heartbeat.py.
"""

from __future__ import annotations

import asyncio

from broker.telemetry.log import get_logger

log = get_logger("ledger.availability")

UNREACHABLE = "PostgreSQL cannot be reached"


class Availability:
    """`away`, and two ways to wait for its change."""

    def __init__(self, *, quiet: bool = False) -> None:
        """`quiet`: for a pool beside a worker's own, so that the log has one line for each outage."""
        self._quiet = quiet
        self.nudged = asyncio.Event()
        """Set: the next heartbeat is wanted at once."""
        self.problem: str | None = None
        """Why the ledger is away, as a sentence; None while it does its work."""
        self._failing: set[object] = set()
        self._reached = asyncio.Event()
        self._back = asyncio.Event()
        self._gone = asyncio.Event()
        self._reached.set()
        self._back.set()

    @property
    def away(self) -> bool:
        """Whether the ledger does not do its work: consumers pause, the process is not ready."""
        return self._gone.is_set()

    def lost(self, error: BaseException) -> None:
        """A connection failed. The next heartbeat follows at once and finds out whether PostgreSQL is still there."""
        self.nudged.set()
        self._reached.clear()
        self._leave(getattr(error, "sqlstate", None) or type(error).__name__, problem_of(error))

    def found(self) -> None:
        """A heartbeat was committed."""
        self._reached.set()
        self._return()

    def failing(self, work: object) -> None:
        """This work has to be done again: the ledger is away until the same work calls `working`."""
        self._failing.add(work)
        self._leave("LedgerAway", UNREACHABLE)

    def working(self, work: object) -> None:
        """This work is done, or is not wanted any more."""
        self._failing.discard(work)
        self._return()

    async def wait_until_reached(self) -> None:
        """For failed work that is to be tried again: returns as soon as PostgreSQL can be reached."""
        await self._reached.wait()

    async def wait_until_back(self) -> None:
        """Returns at once while the ledger does its work."""
        await self._back.wait()

    async def wait_until_away(self) -> None:
        """Returns at once while the ledger does not do its work."""
        await self._gone.wait()

    def _leave(self, reason: str, problem: str) -> None:
        if self.away:
            return
        if not self._quiet:
            log.warning("ledger-away", reason=reason)
        self.problem = problem
        self._gone.set()
        self._back.clear()

    def _return(self) -> None:
        if not self.away or self._failing or not self._reached.is_set():
            return
        if not self._quiet:
            log.info("ledger-back")
        self.problem = None
        self._gone.clear()
        self._back.set()


def problem_of(error: BaseException) -> str:
    """Why the ledger does not do its work, as a sentence without any value of a row."""
    sqlstate = getattr(error, "sqlstate", None)
    if not isinstance(sqlstate, str) or sqlstate.startswith("08") or sqlstate.startswith("57P"):
        return UNREACHABLE
    what = "its tables are locked" if sqlstate == "55P03" else "it refuses the broker's statements"
    return f"PostgreSQL does not do the ledger's work: {what} (SQLSTATE {sqlstate})"
