"""Settle: conditional on owner and epoch, so that a process which was frozen and overtaken settles nothing.

An uncertain ending keeps the citizen's turn and makes a verification due; every other frees the turn. A
settle repeated after a commit of unknown fate is recognised by its own token. Nothing is published here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from broker.ledger.model import Claim, Settled, StoredAnswer
from broker.ledger.postgres.connections import Connection, LazyConnection
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
_arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(COLUMNS.values(), 2))

# Without a last_sent_at an uncertain ending counts as sent at the latest moment that is possible: absence
# proves later, never too early. A verification that ends replaces the answer and leaves an event that no
# arrival publishes.
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
FROM unnest({_arrays}) AS given ({", ".join(COLUMNS)})
WHERE request_id = given.id AND requests.owner = given.owner AND requests.epoch = given.epoch
    AND state IN ('running', 'uncertain')
RETURNING {qualified(FACTS, "requests")}, uncertain_since, settle_token
"""

RECOGNISE = f"""
SELECT {FACTS}, uncertain_since, settle_token FROM requests
WHERE request_id = ANY($1::uuid[]) AND settle_token = ANY($2::uuid[])
"""


@dataclass(frozen=True, slots=True)
class SettleEntry:
    """One claim that ends."""

    ending: StoredAnswer
    request_id: UUID
    token: UUID
    values: tuple[Any, ...]
    report: ReportEntry | None = None


class Settles:
    """Makes entries from claims and endings, and commits batches of them."""

    def __init__(
        self, verify_after: timedelta, line: LazyConnection, safe: FieldSealer, new_reports: NewReports
    ) -> None:
        self._verify_after = verify_after
        self._new_reports = new_reports
        self._line = line
        self._safe = safe

    def entry(self, claim: Claim, ending: StoredAnswer) -> SettleEntry:
        me, token = claim.request_id, uuid4()
        values: tuple[UUID | int | str | bytes | datetime | None, ...] = (
            me,
            token,
            claim.owner,
            claim.epoch,
            ending.status.value,
            self._safe.seal(me, "answer", ending.answer),
            ending.reason,
            ending.error_code,
            ending.last_sent_at,
        )
        report = report_entry(ending.report, me, self._safe) if ending.report else None
        return SettleEntry(ending, me, token, values, report)

    async def flush(self, entries: Sequence[SettleEntry]) -> list[Settled | Exception | None]:
        """What each entry is stored as, None for the overtaken. Raises LedgerAway, RowRefused."""
        rows = await self._line.run(lambda connection: self.commit(connection, entries))
        return [self._stored(entry, rows) for entry in entries]

    async def commit(self, connection: Connection, entries: Sequence[SettleEntry]) -> dict[UUID, Any]:
        """The rows that are settled by these entries, by token, now or by an earlier try."""
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
        if missing := [entry for entry in ordered if entry.token not in stored]:
            ids, tokens = [entry.request_id for entry in missing], [entry.token for entry in missing]
            stored |= {row["settle_token"]: row for row in await connection.fetch(RECOGNISE, ids, tokens)}
        return stored

    async def _store(self, connection: Connection, ordered: Sequence[SettleEntry]) -> dict[UUID, Any]:
        arrays = [list(column) for column in zip(*(entry.values for entry in ordered), strict=True)]
        rows = await connection.fetch(SETTLE, self._verify_after, *arrays)
        return {row["settle_token"]: row for row in rows}

    def _stored(self, entry: SettleEntry, rows: dict[UUID, Any]) -> Settled | None:
        if (row := rows.get(entry.token)) is None:
            return None
        return Settled(entry.ending, facts_of(row))


def _reports(entries: Sequence[SettleEntry]) -> list[ReportEntry]:
    return [entry.report for entry in entries if entry.report is not None]
