"""Intake of reports: each is made, or merged into an equal one, in the transaction that settles its request.

Equal automatic failures within the deduplication window are one report with a count (docs/architecture.md#reports). A
lock for each merge token, held until the end of the transaction, lets one process at a time decide which.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from broker.ledger.model import NewReport
from broker.ledger.postgres.columns import by_column, unnested
from broker.ledger.postgres.connections import Connection
from broker.ledger.postgres.sealed import FieldSealer
from broker.ledger.reports.report_model import UNROUTABLE, ReportState
from broker.telemetry.counters import COUNTERS

CHANNEL = "jobnet_reports_due"
"""NOTIFY wakes the schedulers of all processes; without it they find the report a tick later."""

COLUMNS = {
    "report_id": "uuid",
    "kind": "text",
    "request_id": "uuid",
    "supplier": "text",
    "jobcenter_code": "text",
    "type": "text",
    "error_code": "integer",
    "occurred_at": "timestamptz",
    "content": "bytea",
    "citizen_token": "bytea",
    "citizen_key": "text",
    "merge_token": "bytea",
    "merge_key": "text",
    "count": "integer",
    "traceparent": "text",
    "state": "text",
    "joins": "uuid",
    "cause": "text",
    "cause_class": "text",
}

# A report without a supplier is dead at once: it failed now, and an event is due. A report in `joining` is due,
# unjoined, at the end of its wait.
INSERT = f"""
INSERT INTO reports ({", ".join(COLUMNS)}, due_at, created_at, last_seen_at, first_failed_at, last_failed_at,
    settled_at, event_due_at)
SELECT given.*, now.at + CASE state WHEN 'joining' THEN $1::interval ELSE interval '0' END, now.at, now.at,
    CASE state WHEN 'dead' THEN now.at END, CASE state WHEN 'dead' THEN now.at END,
    CASE state WHEN 'dead' THEN now.at END, CASE state WHEN 'dead' THEN now.at END
FROM {unnested(COLUMNS, first=2)}, (SELECT ledger_now() AS at) AS now
ON CONFLICT DO NOTHING
"""

LANES = "INSERT INTO lanes (supplier) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"

LOCK = "SELECT pg_advisory_xact_lock($1)"

# Without discarded reports: one is never delivered, so a new failure needs a report of its own.
EQUAL = """
SELECT DISTINCT ON (merge_token) merge_token, report_id FROM reports
WHERE merge_token = ANY($1::bytea[]) AND created_at > (SELECT ledger_now()) - $2::interval
    AND kind = 'automatic' AND state <> 'discarded'
ORDER BY merge_token, created_at DESC
"""

COUNT = """
UPDATE reports SET count = count + more.number, last_seen_at = ledger_now()
FROM unnest($1::uuid[], $2::integer[]) AS more (id, number) WHERE report_id = more.id
"""

NAME = """
UPDATE requests SET report_id = named.report_id FROM unnest($1::uuid[], $2::uuid[]) AS named (id, report_id)
WHERE request_id = named.id
"""


@dataclass(frozen=True, slots=True)
class ReportEntry:
    """A report, sealed and tokenised, outside any batch, so that an error there fails one caller only."""

    report_id: UUID
    request_id: UUID
    supplier: str | None
    merge: bytes | None
    values: dict[str, Any]

    def row(self, count: int) -> tuple[Any, ...]:
        """The values of COLUMNS."""
        return tuple(count if name == "count" else self.values[name] for name in COLUMNS)


def report_entry(report: NewReport, request_id: UUID, sealer: FieldSealer) -> ReportEntry:
    """The row of a report that is made when `request_id` is settled."""
    citizen = sealer.citizen(report.cpr)
    merge = sealer.merge(report.merge) if report.merge is not None and report.kind == "automatic" else None
    values: dict[str, Any] = {
        "report_id": report.report_id,
        "kind": str(report.kind),
        "request_id": report.request_id,
        "supplier": report.supplier or None,
        "jobcenter_code": report.jobcenter_code,
        "type": report.type,
        "error_code": int(report.error_code),
        "occurred_at": report.occurred_at,
        "content": sealer.seal(report.report_id, "report", report.content),
        "citizen_token": citizen.digest,
        "citizen_key": citizen.key_id,
        "merge_token": merge.digest if merge else None,
        "merge_key": merge.key_id if merge else None,
        "traceparent": report.traceparent,
        "joins": report.joins,
        **_first_state(report),
    }
    return ReportEntry(
        report.report_id, request_id, report.supplier or None, merge.digest if merge else None, values
    )


def _first_state(report: NewReport) -> dict[str, str | None]:
    if not report.supplier:
        return {"state": ReportState.DEAD.value, "cause": UNROUTABLE, "cause_class": "setup"}
    state = ReportState.WAITING if report.joins is None else ReportState.JOINING
    return {"state": state.value, "cause": None, "cause_class": None}


class NewReports:
    """Makes and merges reports. Call `lock` first in the transaction, and `make` when the requests are settled."""

    def __init__(self, *, merge_within: timedelta, join_within: timedelta) -> None:
        self._merge_within = merge_within
        self._join_within = join_within

    async def lock(self, connection: Connection, entries: Iterable[ReportEntry]) -> None:
        """Take the locks of the merge tokens: before any row is locked, and in one order, which prevents deadlocks."""
        numbers = {
            int.from_bytes(entry.merge[:8], signed=True) for entry in entries if entry.merge is not None
        }
        for number in sorted(numbers):
            await connection.execute(LOCK, number)

    async def make(self, connection: Connection, entries: Sequence[ReportEntry]) -> None:
        """Make or merge them. Only for requests that this transaction settled: a repeated settle makes no report."""
        if not entries:
            return
        groups = _equal(entries)
        tokens = [token for token in groups if isinstance(token, bytes)]
        found = {
            row["merge_token"]: row["report_id"]
            for row in await connection.fetch(EQUAL, tokens, self._merge_within)
        }
        await self._count(connection, groups, found)
        await self._insert(connection, {key: group for key, group in groups.items() if key not in found})
        report_of = {
            entry.request_id: found.get(key, group[0].report_id)
            for key, group in groups.items()
            for entry in group
        }
        await connection.execute(NAME, list(report_of), list(report_of.values()))
        await connection.execute("SELECT pg_notify($1, '')", CHANNEL)

    @staticmethod
    async def _count(connection: Connection, groups: _Groups, found: dict[bytes, UUID]) -> None:
        if found:
            more = sorted((found[token].bytes, len(groups[token])) for token in found)
            ids, numbers = [UUID(bytes=value) for value, _ in more], [number for _, number in more]
            await connection.execute(COUNT, ids, numbers)

    async def _insert(self, connection: Connection, groups: _Groups) -> None:
        if not groups:
            return
        suppliers = {group[0].supplier for group in groups.values()}
        await connection.execute(LANES, sorted(name for name in suppliers if name is not None))
        rows = sorted((group[0].row(len(group)) for group in groups.values()), key=lambda row: row[0].bytes)
        await connection.execute(INSERT, self._join_within, *by_column(rows))
        for group in groups.values():
            COUNTERS.reported(group[0].supplier or "")


_Groups = dict[bytes | UUID, list[ReportEntry]]


def _equal(entries: Iterable[ReportEntry]) -> _Groups:
    """Groups by merge token, or by id for a report that is never merged. The first of a group becomes the report."""
    groups: _Groups = {}
    for entry in entries:
        groups.setdefault(entry.merge if entry.merge is not None else entry.report_id, []).append(entry)
    return groups
