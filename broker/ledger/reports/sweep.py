"""Frees reports and lanes that are stuck: never claimed, left by a dead process, or waiting for a lost probe.

A delivery whose process died counts as a crash, and broker/lanes/retry_policy.py decides about it. The lanes are swept
in transactions of their own: a lane must be locked before its reports.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from uuid import UUID

from broker.lanes.decision import Retry, RetryState
from broker.lanes.events import ProbeLost
from broker.lanes.lane import LaneState
from broker.lanes.retry_policy import judge_crash
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.postgres.heartbeat import orphaned
from broker.ledger.postgres.sealed import SealedRow
from broker.ledger.reports.attempt_results import STATES
from broker.ledger.reports.held_reports import HeldReports
from broker.ledger.reports.lanes import FREE, apply_event, read_lane
from broker.ledger.reports.report_model import ReportState
from broker.ledger.reports.revert import revert_unclaimed
from broker.telemetry.log import get_logger
from config.report_sections import ReportSettings

log = get_logger("ledger.sweep")

SWEEP_MOST = 100
"""Rows of each kind that one sweep frees; the next sweep takes the next ones."""

ORPHANS = f"""
SELECT report_id, supplier, attempts, retries, crashes, bugs, unanswered FROM reports
WHERE state = 'delivering' AND {orphaned("reports.owner", "report_id")}
ORDER BY report_id LIMIT $4 FOR UPDATE SKIP LOCKED
"""

CRASHED = """
UPDATE reports SET state = $2, owner = NULL, handed_at = NULL, epoch = epoch + 1,
    due_at = now.at + $3::interval, retries = $4, crashes = $5, bugs = $6, unanswered = $7,
    cause = 'crash', cause_class = 'ours', fault = NULL,
    first_failed_at = coalesce(first_failed_at, now.at), last_failed_at = now.at,
    settled_at = CASE $2 WHEN 'dead' THEN now.at END, event_due_at = CASE $2 WHEN 'dead' THEN now.at END
FROM (SELECT ledger_now() AS at) AS now WHERE report_id = $1
"""

PROBING = "SELECT supplier FROM lanes WHERE state = 'probing' ORDER BY supplier"

UNDER_WAY = "SELECT state IN ('handed', 'delivering') FROM reports WHERE report_id = $1"


class ReportSweep:
    """One sweep at a call. Raises LedgerAway."""

    def __init__(
        self, owner: UUID, threshold: timedelta, pool: Pool, rules: ReportSettings, held: HeldReports
    ) -> None:
        self._owner = owner
        self._threshold = threshold
        self._pool = pool
        self._rules = rules
        self._held = held

    async def sweep(self) -> int:
        """How many reports and lanes were freed."""
        after = timedelta(seconds=self._rules.handed_over_too_long_seconds)
        freed = await self._pool.run(lambda connection: revert_unclaimed(connection, after, SWEEP_MOST))
        freed += await self._pool.run(self._free_orphans)
        for supplier in await self._pool.run(_probing):
            freed += await self._pool.run(partial(self._free_probing, supplier))
        return freed

    async def _free_orphans(self, connection: Connection) -> int:
        async with connection.transaction():
            rows = await connection.fetch(ORPHANS, self._owner, self._threshold, self._held.ids(), SWEEP_MOST)
            for row in rows:
                await self._crashed(connection, row)
        return len(rows)

    async def _crashed(self, connection: Connection, row: SealedRow) -> None:
        """Store the crash. The report may have been delivered, so its next attempt keeps the x-requestId."""
        tries = RetryState(row["retries"], row["crashes"], row["bugs"], row["unanswered"])
        decision = judge_crash(tries, self._rules)
        verdict, tries = decision.verdict, decision.tries
        state = STATES[type(verdict)]
        pause = timedelta(seconds=verdict.pause_s if isinstance(verdict, Retry) else 0.0)
        write = log.error if state is ReportState.DEAD else log.warning
        write(
            "delivery-crashed", report_id=row["report_id"], supplier=row["supplier"], attempt=row["attempts"]
        )
        counters = (tries.retries, tries.crashes, tries.bugs, tries.unanswered)
        await connection.execute(CRASHED, row["report_id"], state.value, pause, *counters)

    async def _free_probing(self, supplier: str, connection: Connection) -> int:
        """Park the lane again if its probe is over or takes too long."""
        async with connection.transaction():
            snapshot = await read_lane(connection, supplier, FREE)
            if snapshot is None or snapshot.lane.state is not LaneState.PROBING:
                return 0
            within = timedelta(seconds=self._rules.probe_within_seconds)
            late = snapshot.now - snapshot.lane.changed_at > within
            if not late and await connection.fetchval(UNDER_WAY, snapshot.lane.probe):
                return 0
            await apply_event(connection, snapshot, ProbeLost(), self._rules)
        return 1


async def _probing(connection: Connection) -> list[str]:
    return [row["supplier"] for row in await connection.fetch(PROBING)]
