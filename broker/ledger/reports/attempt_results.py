"""The end of attempts at reports: what each came to, for the report and for its supplier's lane, many in one commit.

Conditional on owner and epoch. What happened at the supplier happened: it is written down even for a report that
was taken over meanwhile, and a commit of unknown fate is recognised by its own token. Calls nobody, judges nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from broker.errors import CallFacts
from broker.lanes.decision import Action, DeadLetter, Decision, Delivered, Hold, Retry
from broker.lanes.lane import Lane, LaneRules, after
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.reports.lanes import LaneSnapshot, learn, look_at
from broker.ledger.reports.report_model import ReportClaim, ReportState

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


def _given(columns: dict[str, str]) -> str:
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(columns.values(), 1))
    return f"unnest({arrays}) AS given ({', '.join(columns)})"


FINISH = f"""
UPDATE reports SET state = given.state, owner = NULL, handed_at = NULL, due_at = now.at + given.pause,
    retries = given.retries, crashes = given.crashes, bugs = given.bugs, unanswered = given.unanswered,
    duplicate = given.duplicate, cause = given.cause, cause_class = given.cause_class, fault = given.fault,
    first_failed_at = CASE given.state WHEN 'delivered' THEN first_failed_at ELSE coalesce(first_failed_at, now.at) END,
    last_failed_at = CASE given.state WHEN 'delivered' THEN last_failed_at ELSE now.at END,
    settled_at = CASE given.state WHEN 'waiting' THEN NULL ELSE now.at END,
    event_due_at = CASE given.state WHEN 'waiting' THEN NULL ELSE now.at END
FROM (SELECT ledger_now() AS at) AS now, {_given(FINISH_COLUMNS)}
WHERE report_id = given.id AND reports.owner = given.owner AND reports.epoch = given.epoch
    AND reports.state = 'delivering'
RETURNING report_id, reports.epoch
"""

RESULT = f"""
INSERT INTO attempt_results
SELECT given.id, given.at, ledger_now(), given.verdict, given.cause, given.status, given.fault, given.what,
    given.milliseconds, given.counted, given.applied, given.token, given.supplier
FROM {_given(RESULT_COLUMNS)}
ON CONFLICT DO NOTHING
"""

WRITTEN = """
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
    """One attempt that is over."""

    claim: ReportClaim
    judgement: Decision
    token: UUID = field(default_factory=uuid4)


class Results:
    """Writes batches of results down."""

    def __init__(self, lines: Pool, rules: LaneRules) -> None:
        self._lines = lines
        self._rules = rules

    async def flush(self, ended: Sequence[AttemptResult]) -> list[bool]:
        """Whether each counted, and was not overtaken. Raises LedgerAway, RowRefused."""
        applied = await self._lines.run(lambda connection: self._commit(connection, ended))
        return [applied[one.token] for one in ended]

    async def _commit(self, connection: Connection, ended: Sequence[AttemptResult]) -> dict[UUID, bool]:
        ordered = sorted(ended, key=lambda one: one.claim.report_id.bytes)
        async with connection.transaction():
            lanes = await self._locked(connection, ordered)
            rows = await connection.fetch(FINISH, *_columns(_ending(one) for one in ordered))
            counted = {(row["report_id"], row["epoch"]) for row in rows}
            applied = {one.token: (one.claim.report_id, one.claim.epoch) in counted for one in ordered}
            await connection.execute(RESULT, *_columns(_result(one, applied[one.token]) for one in ordered))
            for one in ended:  # in the order in which they ended
                if applied[one.token]:
                    await self._teach(connection, lanes, one)
        if not all(applied.values()):  # overtaken, or committed by an earlier try of this very batch
            ids, tokens = [one.claim.report_id for one in ordered], [one.token for one in ordered]
            rows = await connection.fetch(WRITTEN, ids, tokens)
            applied |= {row["token"]: row["applied"] for row in rows}
        return applied

    async def _locked(
        self, connection: Connection, ended: Sequence[AttemptResult]
    ) -> dict[str, LaneSnapshot]:
        """The lanes that these can tell anything new, locked: most deliveries cannot, and need no lock."""
        suppliers = {one.claim.supplier for one in ended if one.judgement.lane_event is not None}
        standings = await look_at(connection, suppliers) if suppliers else {}
        news = {name for name, at in standings.items() if self._learns(at, name, ended)}
        return await look_at(connection, news, lock=True) if news else {}

    def _learns(self, at: LaneSnapshot, supplier: str, ended: Sequence[AttemptResult]) -> bool:
        lane: Lane = at.lane
        for one in ended:
            if one.claim.supplier == supplier and (event := one.judgement.lane_event) is not None:
                lane = after(lane, event, at.now, self._rules)
                if lane != at.lane:
                    return True
        return False

    async def _teach(
        self, connection: Connection, lanes: dict[str, LaneSnapshot], one: AttemptResult
    ) -> None:
        event, at = one.judgement.lane_event, lanes.get(one.claim.supplier)
        if event is not None and at is not None:
            lane = await learn(connection, at, event, self._rules)
            lanes[one.claim.supplier] = replace(at, lane=lane)


def _columns(rows: Any) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _ending(one: AttemptResult) -> tuple[Any, ...]:
    """The values of FINISH."""
    claim, verdict, tries = one.claim, one.judgement.verdict, one.judgement.tries
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
        one.judgement.cause_class,
        _fault(one.judgement.call_facts) if not isinstance(verdict, Delivered) else None,
    )


def _result(one: AttemptResult, applied: bool) -> tuple[Any, ...]:
    """The values of RESULT."""
    claim, verdict, call_facts = one.claim, one.judgement.verdict, one.judgement.call_facts
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
        one.token,
        claim.supplier,
    )


def _cause(verdict: Action) -> str | None:
    return None if isinstance(verdict, Delivered) else verdict.cause


def _fault(call_facts: CallFacts | None) -> str | None:
    return call_facts.fault.value if call_facts and call_facts.fault else None
