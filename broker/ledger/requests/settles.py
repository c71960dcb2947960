"""Settles: conditional on owner and epoch, so that a process that was overtaken while it was frozen changes nothing.

docs/architecture.md#settle. An uncertain ending keeps the citizen's turn and makes a verification due; every other
ending frees the turn. A settle whose COMMIT was interrupted is recognised by its own token. Publishes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from broker.ledger.model import Claim, Settled, StoredAnswer
from broker.ledger.postgres.columns import by_column, unnested
from broker.ledger.postgres.connections import Connection, LazyConnection
from broker.ledger.postgres.group_commit import committed_earlier
from broker.ledger.postgres.sealed import FACTS, FieldSealer, facts_of, qualified
from broker.ledger.reports.new_reports import NewReports, ReportEntry, report_entry

COLUMNS = {
    "id": "uuid",
    "token": "uuid",
    "owner": "uuid",
    "epoch": "bigint",
    "status": "text",
    "answer": "bytea",
    "reason": "text",
    "error_code": "integer",
    "last_sent_at": "timestamptz",
}

# Without a last_sent_at, an uncertain ending counts as sent at the latest possible moment, so that the absence of a
# booking is accepted as proof later, never too early. The end of a verification replaces the answer, and makes an
# outcome event due: no message is in flight that would publish it.
SETTLE = f"""
UPDATE requests SET
    state = CASE given.status WHEN 'uncertain' THEN 'uncertain' ELSE 'settled' END,
    status = given.status, answer = given.answer, reason = given.reason, error_code = given.error_code,
    settle_token = given.token,
    turn = CASE given.status WHEN 'uncertain' THEN turn END,
    owner = CASE given.status WHEN 'uncertain' THEN NULL ELSE requests.owner END,
    settled_at = CASE given.status WHEN 'uncertain' THEN NULL ELSE clock_timestamp() END,
    uncertain_since = CASE given.status WHEN 'uncertain' THEN coalesce(uncertain_since, clock_timestamp())
                                        ELSE uncertain_since END,
    last_sent_at = CASE given.status
        WHEN 'uncertain' THEN coalesce(given.last_sent_at, requests.last_sent_at,
                                       greatest(clock_timestamp(), deadline_at))
        ELSE coalesce(given.last_sent_at, requests.last_sent_at) END,
    verify_due_at = CASE given.status WHEN 'uncertain' THEN clock_timestamp() + $1::interval END,
    corrected = corrected OR (state = 'uncertain' AND given.status <> 'uncertain'),
    event_due_at = CASE WHEN state = 'uncertain' AND given.status <> 'uncertain'
                        THEN clock_timestamp() ELSE event_due_at END
FROM {unnested(COLUMNS, first=2)}
WHERE request_id = given.id AND requests.owner = given.owner AND requests.epoch = given.epoch
    AND state IN ('running', 'uncertain')
RETURNING {qualified(FACTS, "requests")}, uncertain_since, settle_token AS token
"""

RECOGNISE = f"""
SELECT {FACTS}, uncertain_since, settle_token AS token FROM requests
WHERE request_id = ANY($1::uuid[]) AND settle_token = ANY($2::uuid[])
"""


@dataclass(frozen=True, slots=True)
class SettleEntry:
    """One claim to settle, as the parameters of SETTLE."""

    ending: StoredAnswer
    request_id: UUID
    token: UUID
    values: tuple[Any, ...]
    report: ReportEntry | None = None


class Settles:
    """Makes entries from claims and endings, and commits batches of them."""

    def __init__(
        self,
        verify_after: timedelta,
        connection: LazyConnection,
        sealer: FieldSealer,
        new_reports: NewReports,
    ) -> None:
        self._verify_after = verify_after
        self._connection = connection
        self._sealer = sealer
        self._new_reports = new_reports

    def entry(self, claim: Claim, ending: StoredAnswer) -> SettleEntry:
        request_id, token = claim.request_id, uuid4()
        values: tuple[UUID | int | str | bytes | datetime | None, ...] = (
            request_id,
            token,
            claim.owner,
            claim.epoch,
            ending.status.value,
            self._sealer.seal(request_id, "answer", ending.answer),
            ending.reason,
            ending.error_code,
            ending.last_sent_at,
        )
        report = report_entry(ending.report, request_id, self._sealer) if ending.report else None
        return SettleEntry(ending, request_id, token, values, report)

    async def flush(self, entries: Sequence[SettleEntry]) -> list[Settled | Exception | None]:
        """For each entry the stored ending, None if its claim was overtaken. Raises LedgerAway, RowRefused."""
        rows = await self._connection.run(lambda connection: self.commit(connection, entries))
        return [self._stored(entry, rows) for entry in entries]

    async def commit(self, connection: Connection, entries: Sequence[SettleEntry]) -> dict[UUID, Any]:
        """The rows that these entries settled, now or in an earlier try, by token."""
        ordered = sorted(entries, key=lambda entry: entry.request_id.bytes)
        reported = [entry for entry in ordered if entry.report is not None]
        if not reported:
            stored = await self._store(connection, ordered)
        else:
            async with connection.transaction():
                await self._new_reports.lock(connection, _reports(reported))
                stored = await self._store(connection, ordered)
                made = [entry for entry in reported if entry.token in stored]
                await self._new_reports.make(connection, _reports(made))
        missing = [(entry.request_id, entry.token) for entry in ordered if entry.token not in stored]
        return stored | await committed_earlier(connection, RECOGNISE, missing)

    async def _store(self, connection: Connection, ordered: Sequence[SettleEntry]) -> dict[UUID, Any]:
        arrays = by_column(entry.values for entry in ordered)
        return {row["token"]: row for row in await connection.fetch(SETTLE, self._verify_after, *arrays)}

    def _stored(self, entry: SettleEntry, rows: dict[UUID, Any]) -> Settled | None:
        if (row := rows.get(entry.token)) is None:
            return None
        return Settled(entry.ending, facts_of(row))


def _reports(entries: Sequence[SettleEntry]) -> list[ReportEntry]:
    return [entry.report for entry in entries if entry.report is not None]
