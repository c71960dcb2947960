"""Frees what is stuck on the lanes: never picked up, left by a dead process, or a probe that nobody answers for.

Deliveries are counted as crashes, and judged by `delivery_policy`; reports before their lane are locked by
nobody here, so the lanes have a step of their own.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol
from uuid import UUID

from broker.lanes.decision import DeliveryRules, Retry, RetryState
from broker.lanes.lane import LaneRules, LaneState, ProbeLost
from broker.lanes.retry_policy import judge_crash
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.postgres.heartbeat import owner_is_dead
from broker.ledger.postgres.sealed import SealedRow
from broker.ledger.reports.attempt_results import STATES
from broker.ledger.reports.held_reports import HeldReports
from broker.ledger.reports.lanes import FREE, learn, look
from broker.ledger.reports.report_model import ReportState
from broker.telemetry.log import get_logger

log = get_logger("ledger.sweep")

SWEEP_MOST = 100
"""Rows of each kind that one sweep frees; the next sweep takes the next ones."""

FREE_HANDED = """
UPDATE reports SET state = 'waiting', handed_at = NULL
WHERE report_id IN (
    SELECT report_id FROM reports
    WHERE state = 'handed' AND handed_at < (SELECT ledger_now()) - $1::interval
    ORDER BY report_id LIMIT $2 FOR UPDATE SKIP LOCKED)
"""

LEFT = f"""
SELECT report_id, supplier, attempts, retries, crashes, bugs, unanswered FROM reports
WHERE state = 'delivering' AND ((owner = $1 AND report_id <> ALL($3::uuid[]))
    OR (owner <> $1 AND {owner_is_dead("reports.owner")}))
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


class SweepRules(DeliveryRules, LaneRules, Protocol):
    """The settings' section `reports`, as far as a sweep needs it."""

    @property
    def handed_over_too_long_seconds(self) -> float:
        """After this a report that nobody claimed waits again."""

    @property
    def probe_within_seconds(self) -> float:
        """After this a probe counts as lost."""


class ReportSweep:
    """One pass. Raises LedgerAway."""

    def __init__(
        self, me: UUID, threshold: timedelta, lines: Pool, rules: SweepRules, holdings: HeldReports
    ) -> None:
        self._me = me
        self._threshold = threshold
        self._lines = lines
        self._rules = rules
        self._holdings = holdings

    async def sweep(self) -> int:
        """How many reports and lanes were freed."""
        freed = await self._lines.run(self._handed)
        freed += await self._lines.run(self._left)
        for supplier in await self._lines.run(_probing):
            freed += await self._lines.run(lambda c, s=supplier: self._probe(c, s))  # type: ignore[misc]
        return freed

    async def _handed(self, connection: Connection) -> int:
        too_long = timedelta(seconds=self._rules.handed_over_too_long_seconds)
        tag = await connection.execute(FREE_HANDED, too_long, SWEEP_MOST)
        return int(tag.split()[-1])

    async def _left(self, connection: Connection) -> int:
        async with connection.transaction():
            mine = (self._me, self._threshold, self._holdings.in_hand())
            rows = await connection.fetch(LEFT, *mine, SWEEP_MOST)
            for row in rows:
                await self._crashed(connection, row)
        return len(rows)

    async def _crashed(self, connection: Connection, row: SealedRow) -> None:
        """The process died at it. It may have been delivered: the same x-requestId again."""
        tries = RetryState(row["retries"], row["crashes"], row["bugs"], row["unanswered"])
        judgement = judge_crash(tries, self._rules)
        verdict, now = judgement.verdict, judgement.tries
        state = STATES[type(verdict)]
        pause = timedelta(seconds=verdict.pause_s if isinstance(verdict, Retry) else 0.0)
        tell = log.error if state is ReportState.DEAD else log.warning
        tell(
            "delivery-crashed", report_id=row["report_id"], supplier=row["supplier"], attempt=row["attempts"]
        )
        await connection.execute(
            CRASHED, row["report_id"], state.value, pause, now.retries, now.crashes, now.bugs, now.unanswered
        )

    async def _probe(self, connection: Connection, supplier: str) -> int:
        async with connection.transaction():
            at = await look(connection, supplier, FREE)
            if at is None or at.lane.state is not LaneState.PROBING:
                return 0
            late = at.now - at.lane.changed_at > timedelta(seconds=self._rules.probe_within_seconds)
            if not late and await connection.fetchval(UNDER_WAY, at.lane.probe):
                return 0
            await learn(connection, at, ProbeLost(), self._rules)
        return 1


async def _probing(connection: Connection) -> list[str]:
    return [row["supplier"] for row in await connection.fetch(PROBING)]
