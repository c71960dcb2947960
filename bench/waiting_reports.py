"""Inserts waiting failure reports into the ledger, with the broker's own sealing and INSERT statement.

The large number of them are copies, made by SQL. Their sealed content belongs to another id and cannot be opened, so
they are due after the real reports and are not reached during a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg

from bench import job
from bench.launch import KEYS
from broker.ledger.model import NewReport
from broker.ledger.postgres.sealed import FieldSealer
from broker.ledger.reports.new_reports import CHANNEL, COLUMNS, INSERT, LANES, report_entry
from broker.sealing import Sealer
from config.sections import KeySettings
from schemas.codes import ErrorCode, ReportKind
from schemas.failure_reports import Report
from schemas.personal import Cpr

TEXT = "Systemfejl i kontakten med jobcentrets bookingsystem."
BATCH = 1000
COPIES = f"""
INSERT INTO reports ({", ".join(COLUMNS)}, due_at)
SELECT gen_random_uuid(), {", ".join(name for name in COLUMNS if name != "report_id")}, due_at + interval '1 second'
FROM (SELECT * FROM reports LIMIT $1) AS r, generate_series(1, $2)
"""  # noqa: S608  built from the broker's own names only


def supplier_of(number: int) -> str:
    return f"f{job.jobcenter_of(number)}"


def rows(sealer: FieldSealer, first: int, count: int) -> list[tuple[object, ...]]:
    return [_row(sealer, number) for number in range(first, first + count)]


def _row(sealer: FieldSealer, number: int) -> tuple[object, ...]:
    report_id, request_id, at = uuid4(), uuid4(), datetime.now(UTC)
    report = Report(
        report_id=report_id,
        kind=ReportKind.AUTOMATIC,
        cpr=Cpr(job.cpr_of(number)),
        offer_id=UUID(job.OFFER),
        error_code=ErrorCode.OTHER,
        error_text=TEXT,
        occurred_at=at,
        jobcenter_code=job.jobcenter_of(number),
        request_id=request_id,
        type=job.TYPE,
        supplier=supplier_of(number),
    )
    new = NewReport(
        report_id=report_id,
        kind=ReportKind.AUTOMATIC,
        request_id=request_id,
        supplier=supplier_of(number),
        jobcenter_code=report.jobcenter_code,
        type=job.TYPE,
        error_code=int(ErrorCode.OTHER),
        occurred_at=at,
        content=report.to_json(),
        cpr=report.cpr,
    )
    return report_entry(new, request_id, sealer).row(1)


def field_sealer() -> FieldSealer:
    return FieldSealer(Sealer(KeySettings.model_validate(KEYS)))


async def insert(
    connection: asyncpg.Connection[asyncpg.Record], report_rows: Sequence[tuple[object, ...]]
) -> None:
    """Insert rows as the broker does, and notify the schedulers."""
    arrays = [list(column) for column in zip(*report_rows, strict=True)]
    await connection.execute(INSERT, timedelta(0), *arrays)
    await connection.execute("SELECT pg_notify($1, '')", CHANNEL)


async def make(dsn: str, count: int, copies: int = 0) -> None:
    """Insert `count` reports that can be delivered, for all suppliers, and about `copies` copies due after them."""
    connection = await asyncpg.connect(dsn, command_timeout=1200)
    try:
        sealer = field_sealer()
        await connection.execute(LANES, [supplier_of(number) for number in range(job.SYSTEMS)])
        for first in range(0, count, BATCH):
            await insert(connection, rows(sealer, first, min(BATCH, count - first)))
        if copies:
            batch = min(count, BATCH)
            await connection.execute(COPIES, batch, max(1, copies // batch))
    finally:
        await connection.close()
