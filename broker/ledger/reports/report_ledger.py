"""Failure reports as the rest of the broker sees them: `ledger.reports` (DESIGN 6).

Handed over when due, claimed, finished, swept; waiting to be joined; looked up. `claim` and `finish` wait while
PostgreSQL is away, everything else raises LedgerAway. Nothing is published or called from here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from broker.lanes.decision import Decision
from broker.lanes.lane import Lane, Paused, Resumed
from broker.ledger.postgres.connections import Pool, Server
from broker.ledger.postgres.group_commit import GroupCommit
from broker.ledger.postgres.reachability import Availability
from broker.ledger.postgres.sealed import FieldSealer
from broker.ledger.reports.attempt_results import AttemptResult, Results
from broker.ledger.reports.attempts import AttemptRequest, Attempts
from broker.ledger.reports.handover import Handover
from broker.ledger.reports.held_reports import HeldReports
from broker.ledger.reports.joins import Joins
from broker.ledger.reports.lanes import LaneDesk
from broker.ledger.reports.report_lookups import ReportCount, ReportLookups
from broker.ledger.reports.report_model import (
    DueReportEvent,
    HandedOver,
    Joinable,
    LaneLimits,
    LaneRow,
    ReportClaim,
)
from broker.ledger.reports.sweep import ReportSweep
from broker.ledger.reports.wake import Wake
from config.settings import Settings


class Reports:
    """One process's door to the reports."""

    def __init__(
        self,
        settings: Settings,
        me: UUID,
        lines: Pool,
        target: Server,
        reach: Availability,
        safe: FieldSealer,
    ) -> None:
        rules = settings.reports
        threshold = timedelta(seconds=settings.ledger.owner_dead_after_seconds)
        self._holdings = holdings = HeldReports()
        self._lookups = ReportLookups(lines)
        self._handing = Handover(lines, rules, timedelta(seconds=settings.scheduler.tick_seconds))
        self._attempts = Attempts(me, lines, safe, holdings)
        self._results = Results(lines, rules)
        most, linger_s = settings.ledger.batch_size, settings.ledger.batch_linger_ms / 1000
        self._claiming: GroupCommit[AttemptRequest, ReportClaim | None] = GroupCommit(
            self._attempts.flush, reach, most=most, linger_s=linger_s, what="attempts"
        )
        self._finishing: GroupCommit[AttemptResult, bool] = GroupCommit(
            self._results.flush, reach, most=most, linger_s=linger_s, what="results"
        )
        self._sweep = ReportSweep(me, threshold, lines, rules, holdings)
        self._joins = Joins(lines, safe)
        self._desk = LaneDesk(lines, rules)
        self._wake = Wake(target, reach)

    @property
    def gathering(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """What commits claims and results: one task each, until it is cancelled."""
        return self._claiming.run, self._finishing.run

    async def drained(self) -> None:
        """Wait until every claim and result so far is committed."""
        await self._claiming.drained()
        await self._finishing.drained()

    # -- the way of a report -------------------------------------------------------------------------------------

    async def hand_over(self, limits: Mapping[str, LaneLimits]) -> list[HandedOver]:
        """What is due and fits its lane's window and rate; it is committed: publish it now.

        The lane of a supplier that is not in `limits` is left alone. A parked lane whose time came hands over
        one probe.
        """
        return await self._handing.hand_over(limits)

    async def give_back(self, *handed: HandedOver) -> None:
        """Publishing failed, or nobody knows: waiting again, uncounted. A message that got there is dropped."""
        await self._handing.give_back(handed)

    async def claim(self, report_id: UUID, number: int) -> ReportClaim | None:
        """The right to one attempt, its intent written down; None: ack and drop, it is not to be delivered now."""
        with self._holdings.asking(report_id):
            return await self._claiming.submit(AttemptRequest(report_id, number))

    async def finish(self, claim: ReportClaim, judgement: Decision) -> bool:
        """Write down what the attempt came to, for the report, its lane and whoever listens; False: overtaken.

        Never call the supplier again because of this. Raises RowRefused.
        """
        applied = await self._finishing.submit(AttemptResult(claim, judgement))
        self._wake.set()
        return applied

    async def sweep(self) -> int:
        """Free what is stuck: handed over too long, left by a dead owner (a crash), probes lost. How many."""
        return await self._sweep.sweep()

    async def wait_due(self, timeout_s: float) -> None:
        """Until a report may be due, at most so long. Never raises; look even when nothing woke you."""
        await self._wake.wait(timeout_s)

    # -- citizens' reports that wait for their failed request --------------------------------------------------------

    async def joinable(self, limit: int) -> list[Joinable]:
        """Those that may go: their request is settled, or they have waited long enough. Join each."""
        return await self._joins.joinable(limit)

    async def join(self, report_id: UUID, content: bytes) -> bool:
        """Due now, with this content; False if another process was quicker."""
        return await self._joins.join(report_id, content)

    # -- looked up -----------------------------------------------------------------------------------------------

    async def events_due(self, limit: int) -> list[DueReportEvent]:
        """Ends of reports that nobody was told of; due again in a minute unless `event_sent`."""
        return await self._lookups.events_due(limit)

    async def event_sent(self, report_ids: Iterable[UUID]) -> None:
        await self._lookups.event_sent(report_ids)

    async def counts(self) -> list[ReportCount]:
        """Every report there is, counted once, by supplier and state."""
        return await self._lookups.counts()

    async def open_suppliers(self) -> set[str]:
        """The suppliers that something is still to be delivered to: they must not leave the directory."""
        return await self._lookups.open_suppliers()

    async def lanes(self) -> list[LaneRow]:
        """Every lane, by name, with what stands on it."""
        return await self._desk.lanes()

    async def pause(self, supplier: str, by: str, reason: str) -> Lane:
        """Nothing is handed over any more until somebody resumes the lane."""
        return await self._desk.tell(supplier, Paused(by, reason))

    async def resume(self, supplier: str, by: str, reason: str) -> Lane:
        """A paused lane goes on; a parked one probes at once, but never before the supplier's Retry-After."""
        return await self._desk.tell(supplier, Resumed(by, reason))

    async def close(self) -> None:
        await self._wake.close()
