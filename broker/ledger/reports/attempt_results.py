"""Ends delivery attempts: stores each result for the report and for its supplier's lane, many in one transaction.

The report changes only under the same owner and epoch. The result is stored even when the claim was overtaken, because
the call was made. A batch whose COMMIT was interrupted is recognised by its tokens. Calls nothing, decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from broker.errors import CallFacts
from broker.lanes.decision import Action, DeadLetter, Decision, Delivered, Hold, Retry
from broker.lanes.lane import Lane, after
from broker.ledger.postgres.columns import by_column, unnested
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.postgres.group_commit import committed_earlier
from broker.ledger.reports.lanes import LaneSnapshot, apply_event, read_lanes
from broker.ledger.reports.report_model import ReportClaim, ReportState
from config.report_sections import ReportSettings

FINISH_COLUMNS = {
    "id": "uuid",
    "owner": "uuid",
    "epoch": "bigint",
    "state": "text",
    "pause": "interval",
    "retries": "integer",
    "crashes": "integer",
    "bugs": "integer",
    "unanswered": "boolean",
    "duplicate": "boolean",
    "cause": "text",
    "cause_class": "text",
    "fault": "text",
}
RESULT_COLUMNS = {
    "id": "uuid",
    "at": "integer",
    "verdict": "text",
    "cause": "text",
    "status": "integer",
    "fault": "text",
    "what": "text",
    "milliseconds": "integer",
    "counted": "boolean",
    "applied": "boolean",
    "token": "uuid",
    "supplier": "text",
}

FINISH = f"""
UPDATE reports SET state = given.state, owner = NULL, handed_at = NULL, due_at = now.at + given.pause,
    retries = given.retries, crashes = given.crashes, bugs = given.bugs, unanswered = given.unanswered,
    duplicate = given.duplicate, cause = given.cause, cause_class = given.cause_class, fault = given.fault,
    first_failed_at = CASE given.state WHEN 'delivered' THEN first_failed_at ELSE coalesce(first_failed_at, now.at) END,
    last_failed_at = CASE given.state WHEN 'delivered' THEN last_failed_at ELSE now.at END,
    settled_at = CASE given.state WHEN 'waiting' THEN NULL ELSE now.at END,
    event_due_at = CASE given.state WHEN 'waiting' THEN NULL ELSE now.at END
FROM (SELECT ledger_now() AS at) AS now, {unnested(FINISH_COLUMNS)}
WHERE report_id = given.id AND reports.owner = given.owner AND reports.epoch = given.epoch
    AND reports.state = 'delivering'
RETURNING report_id, reports.epoch
"""

RESULT = f"""
INSERT INTO attempt_results
SELECT given.id, given.at, ledger_now(), given.verdict, given.cause, given.status, given.fault, given.what,
    given.milliseconds, given.counted, given.applied, given.token, given.supplier
FROM {unnested(RESULT_COLUMNS)}
ON CONFLICT DO NOTHING
"""

RECOGNISE = """
SELECT token, applied FROM attempt_results WHERE report_id = ANY($1::uuid[]) AND token = ANY($2::uuid[])
"""

STATES: dict[type, ReportState] = {
    Delivered: ReportState.DELIVERED,
    Retry: ReportState.WAITING,
    Hold: ReportState.WAITING,
    DeadLetter: ReportState.DEAD,
}


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """One attempt that is over, and the decision about it."""

    claim: ReportClaim
    decision: Decision
    token: UUID = field(default_factory=uuid4)


class Results:
    """Stores batches of results."""

    def __init__(self, pool: Pool, rules: ReportSettings) -> None:
        self._pool = pool
        self._rules = rules

    async def flush(self, results: Sequence[AttemptResult]) -> list[bool]:
        """For each whether it applied; False if its claim was overtaken. Raises LedgerAway, RowRefused."""
        applied = await self._pool.run(lambda connection: self._commit(connection, results))
        return [applied[result.token] for result in results]

    async def _commit(self, connection: Connection, results: Sequence[AttemptResult]) -> dict[UUID, bool]:
        ordered = sorted(results, key=lambda result: result.claim.report_id.bytes)
        async with connection.transaction():
            lanes = await self._locked(connection, ordered)
            rows = await connection.fetch(FINISH, *by_column(_finish_values(result) for result in ordered))
            finished = {(row["report_id"], row["epoch"]) for row in rows}
            applied = {
                result.token: (result.claim.report_id, result.claim.epoch) in finished for result in ordered
            }
            values = (_result_values(result, applied[result.token]) for result in ordered)
            await connection.execute(RESULT, *by_column(values))
            # In the order in which the attempts ended.
            for result in results:
                if applied[result.token]:
                    await self._apply_event(connection, lanes, result)
        # Overtaken, or committed by an earlier try of this batch.
        missing = [(result.claim.report_id, result.token) for result in ordered if not applied[result.token]]
        earlier = await committed_earlier(connection, RECOGNISE, missing)
        return applied | {token: row["applied"] for token, row in earlier.items()}

    async def _locked(
        self, connection: Connection, results: Sequence[AttemptResult]
    ) -> dict[str, LaneSnapshot]:
        """The lanes that these results change, locked. Most deliveries change none, and then no lane is locked."""
        suppliers = {result.claim.supplier for result in results if result.decision.lane_event is not None}
        snapshots = await read_lanes(connection, suppliers) if suppliers else {}
        changed = {name for name, snapshot in snapshots.items() if self._changes(snapshot, results)}
        return await read_lanes(connection, changed, lock=True) if changed else {}

    def _changes(self, snapshot: LaneSnapshot, results: Sequence[AttemptResult]) -> bool:
        lane: Lane = snapshot.lane
        for result in results:
            event = result.decision.lane_event
            if result.claim.supplier == lane.supplier and event is not None:
                lane = after(lane, event, snapshot.now, self._rules)
                if lane != snapshot.lane:
                    return True
        return False

    async def _apply_event(
        self, connection: Connection, lanes: dict[str, LaneSnapshot], result: AttemptResult
    ) -> None:
        event, snapshot = result.decision.lane_event, lanes.get(result.claim.supplier)
        if event is not None and snapshot is not None:
            lane = await apply_event(connection, snapshot, event, self._rules)
            lanes[result.claim.supplier] = replace(snapshot, lane=lane)


def _finish_values(result: AttemptResult) -> tuple[Any, ...]:
    """The values of FINISH_COLUMNS."""
    claim, decision = result.claim, result.decision
    verdict, tries = decision.verdict, decision.tries
    return (
        claim.report_id,
        claim.owner,
        claim.epoch,
        STATES[type(verdict)].value,
        timedelta(seconds=verdict.pause_s if isinstance(verdict, Retry) else 0.0),
        tries.retries,
        tries.crashes,
        tries.bugs,
        tries.unanswered,
        isinstance(verdict, Delivered) and verdict.duplicate,
        _cause(verdict),
        decision.cause_class,
        _fault(decision.call_facts) if not isinstance(verdict, Delivered) else None,
    )


def _result_values(result: AttemptResult, applied: bool) -> tuple[Any, ...]:
    """The values of RESULT_COLUMNS."""
    claim, verdict, call_facts = result.claim, result.decision.verdict, result.decision.call_facts
    return (
        claim.report_id,
        claim.attempt,
        verdict.label,
        _cause(verdict),
        call_facts.status if call_facts else None,
        _fault(call_facts),
        call_facts.what if call_facts else None,
        call_facts.milliseconds if call_facts else None,
        isinstance(verdict, Retry) and verdict.counted,
        applied,
        result.token,
        claim.supplier,
    )


def _cause(verdict: Action) -> str | None:
    return None if isinstance(verdict, Delivered) else verdict.cause


def _fault(call_facts: CallFacts | None) -> str | None:
    return call_facts.fault.value if call_facts and call_facts.fault else None
