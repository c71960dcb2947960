"""Starts delivery attempts: claims reports by hand-over number and records each attempt before its call.

Many in one transaction: one for each costs ten times the delivery. Safe to repeat: a batch whose COMMIT was interrupted
is recognised by the tokens of its claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from broker.lanes.decision import RetryState
from broker.lanes.retry_policy import x_request_id
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.postgres.group_commit import committed_earlier
from broker.ledger.postgres.sealed import FieldSealer, SealedRow
from broker.ledger.reports.report_model import ReportClaim
from broker.sealing import SealBroken
from broker.telemetry.log import get_logger
from schemas.codes import ReportKind

log = get_logger("ledger.attempts")

CLAIMED = (
    "report_id, epoch, owner, supplier, attempts, try_key, retries, crashes, bugs, unanswered, count, kind,"
    " request_id, jobcenter_code, traceparent, content, claim_token AS token"
)

# Most reports are delivered at the first attempt, and a first attempt is no replay: no need to look there.
REPLAYED = """CASE WHEN attempts > 1 THEN EXISTS (
    SELECT FROM replay_items AS i WHERE i.letter_id = reports.report_id AND i.state = 'replayed')
    ELSE false END AS replayed"""

CLAIM = f"""
UPDATE reports SET state = 'delivering', owner = $1, epoch = epoch + 1, claim_token = given.token,
    attempts = attempts + 1, try_key = try_key + CASE WHEN unanswered THEN 0 ELSE 1 END
FROM unnest($2::uuid[], $3::bigint[], $4::uuid[]) AS given (id, at, token)
WHERE report_id = given.id AND number = given.at AND state = 'handed'
RETURNING {CLAIMED}, {REPLAYED}, coalesce(
    (SELECT probe = report_id FROM lanes WHERE lanes.supplier = reports.supplier), false) AS probe
"""

RECOGNISE = f"""
SELECT {CLAIMED}, {REPLAYED}, (SELECT probe FROM attempts AS a
                   WHERE a.report_id = reports.report_id AND a.number = reports.attempts) AS probe
FROM reports WHERE report_id = ANY($1::uuid[]) AND claim_token = ANY($2::uuid[]) AND state = 'delivering'
"""

INTENT = """
INSERT INTO attempts SELECT given.id, given.at, $1, ledger_now(), given.x_request_id, given.probe
FROM unnest($2::uuid[], $3::integer[], $4::text[], $5::boolean[]) AS given (id, at, x_request_id, probe)
"""

# The attempt is taken back: without the content no call is possible.
UNREADABLE = """
UPDATE reports SET state = 'dead', cause = 'seal-broken', cause_class = 'ours', fault = NULL, owner = NULL,
    attempts = attempts - 1, handed_at = NULL, first_failed_at = coalesce(first_failed_at, now.at),
    last_failed_at = now.at, settled_at = now.at, event_due_at = now.at
FROM (SELECT ledger_now() AS at) AS now WHERE report_id = ANY($1::uuid[])
"""


@dataclass(frozen=True, slots=True)
class AttemptRequest:
    """A message on a lane asks for an attempt at a report, handed over under `number`."""

    report_id: UUID
    number: int
    token: UUID = field(default_factory=uuid4)


class Attempts:
    """Claims batches of reports."""

    def __init__(self, owner: UUID, pool: Pool, sealer: FieldSealer) -> None:
        self._owner = owner
        self._pool = pool
        self._sealer = sealer

    async def flush(self, requests: Sequence[AttemptRequest]) -> list[ReportClaim | None]:
        """For each its claim, or None: not to be delivered under that number now. Raises LedgerAway, RowRefused."""
        claims = await self._pool.run(lambda connection: self._commit(connection, requests))
        return [claims.get(request.token) for request in requests]

    async def _commit(
        self, connection: Connection, requests: Sequence[AttemptRequest]
    ) -> dict[UUID, ReportClaim]:
        ordered = sorted(requests, key=lambda request: request.report_id.bytes)
        ids, tokens = [request.report_id for request in ordered], [request.token for request in ordered]
        numbers = [request.number for request in ordered]
        async with connection.transaction():
            rows = await connection.fetch(CLAIM, self._owner, ids, numbers, tokens)
            claims = await self._opened(connection, rows)
            begun = list(claims.values())
            await connection.execute(
                INTENT,
                self._owner,
                [claim.report_id for claim in begun],
                [claim.attempt for claim in begun],
                [claim.x_request_id for claim in begun],
                [claim.probe for claim in begun],
            )
        if len(rows) < len(ordered):
            # The others are stale messages, or an earlier try of this batch has claimed them.
            missing = [
                (request.report_id, request.token) for request in ordered if request.token not in claims
            ]
            earlier = await committed_earlier(connection, RECOGNISE, missing)
            claims |= {token: self._claim(row) for token, row in earlier.items()}
        return claims

    async def _opened(self, connection: Connection, rows: Sequence[SealedRow]) -> dict[UUID, ReportClaim]:
        """The claims by token; a report that cannot be decrypted becomes dead instead."""
        claims, unreadable = {}, []
        for row in rows:
            try:
                claims[row["token"]] = self._claim(row)
            except SealBroken as broken:
                log.error("report-does-not-open", report_id=row["report_id"], reason=str(broken))
                unreadable.append(row["report_id"])
        if unreadable:
            await connection.execute(UNREADABLE, unreadable)
        return claims

    def _claim(self, row: SealedRow) -> ReportClaim:
        """Raises SealBroken."""
        report_id = row["report_id"]
        return ReportClaim(
            report_id=report_id,
            epoch=row["epoch"],
            owner=row["owner"],
            supplier=row["supplier"],
            attempt=row["attempts"],
            x_request_id=x_request_id(report_id, row["try_key"]),
            tries=RetryState(row["retries"], row["crashes"], row["bugs"], row["unanswered"]),
            probe=row["probe"],
            count=row["count"],
            kind=ReportKind(row["kind"]),
            request_id=row["request_id"],
            jobcenter_code=row["jobcenter_code"],
            traceparent=row["traceparent"],
            content=self._sealer.open(report_id, "report", row["content"]),
            replayed=row["replayed"],
        )
