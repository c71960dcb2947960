"""`ledger.reports`: failure reports as the rest of the broker sees them (docs/architecture.md#reports).

`claim` and `finish` are batched and wait while PostgreSQL is away; every other call raises LedgerAway then. Nothing is
published or called from here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any
from uuid import UUID

from broker.lanes.decision import Decision
from broker.ledger.postgres.connections import Pool, Server
from broker.ledger.postgres.group_commit import GroupCommit
from broker.ledger.postgres.reachability import Availability
from broker.ledger.postgres.sealed import FieldSealer
from broker.ledger.reports.attempt_results import AttemptResult, Results
from broker.ledger.reports.attempts import AttemptRequest, Attempts
from broker.ledger.reports.handover import Handover
from broker.ledger.reports.held_reports import HeldReports
from broker.ledger.reports.joins import Joins
from broker.ledger.reports.report_events import ReportEvents
from broker.ledger.reports.report_model import ReportClaim
from broker.ledger.reports.sweep import ReportSweep
from broker.ledger.reports.wake import Wake
from config.settings import Settings


class Reports:
    """What one process does with reports."""

    def __init__(
        self,
        settings: Settings,
        owner: UUID,
        pool: Pool,
        server: Server,
        availability: Availability,
        sealer: FieldSealer,
    ) -> None:
        rules = settings.reports
        threshold = timedelta(seconds=settings.ledger.owner_dead_after_seconds)
        self._held = HeldReports()
        self.handover = Handover(pool, rules, burst=timedelta(seconds=settings.scheduler.tick_seconds))
        self.joins = Joins(pool, sealer)
        self.events = ReportEvents(pool)
        self.wake = Wake(server, availability)
        self._sweep = ReportSweep(owner, threshold, pool, rules, self._held)
        self._attempts = Attempts(owner, pool, sealer)
        self._results = Results(pool, rules)
        most, linger_s = settings.ledger.batch_size, settings.ledger.batch_linger_ms / 1000
        self._claiming: GroupCommit[AttemptRequest, ReportClaim | None] = GroupCommit(
            self._attempts.flush, availability, most=most, linger_s=linger_s, what="attempts"
        )
        self._finishing: GroupCommit[AttemptResult, bool] = GroupCommit(
            self._results.flush, availability, most=most, linger_s=linger_s, what="results"
        )

    @property
    def commit_loops(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """The loops that commit claims and results; each runs as one task until it is cancelled."""
        return self._claiming.run, self._finishing.run

    async def drained(self) -> None:
        """Wait until every claim and result so far is committed."""
        await self._claiming.drained()
        await self._finishing.drained()

    async def claim(self, report_id: UUID, number: int) -> ReportClaim | None:
        """The right to one attempt, which is already recorded. None: not to be delivered now; acknowledge and drop.

        The sweep leaves the claim alone until the caller lets it go: `with reports.until_end(claim):`.
        """
        with self._held.asking(report_id):
            claim = await self._claiming.submit(AttemptRequest(report_id, number))
            # Not before: a caller that was cancelled meanwhile would never let it go.
            return self._held.hold(claim) if claim is not None else None

    def until_end(self, claim: ReportClaim) -> AbstractContextManager[None]:
        """Let the claim go at the end of the block. Without a result the next sweep counts a crash."""
        return self._held.until_end(claim)

    async def finish(self, claim: ReportClaim, decision: Decision) -> bool:
        """Store the result of the attempt for the report and its lane, and make an event due at its end.

        False: the claim was overtaken. Never call the supplier again because of this. Raises RowRefused.
        """
        applied = await self._finishing.submit(AttemptResult(claim, decision))
        self.wake.set()
        return applied

    async def sweep(self) -> int:
        """Free what is stuck: never claimed, left by a dead owner (a crash), a lost probe. Returns how many."""
        return await self._sweep.sweep()

    async def close(self) -> None:
        await self.wake.close()
