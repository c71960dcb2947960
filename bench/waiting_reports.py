"""Waiting failure reports, written into the ledger by SQL with the broker's own sealing and its own insert.

A million of them are copies: their sealed content belongs to another id and would not open, so they stand behind the
real ones in the line and are never reached.
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
AT_ONCE = 1000
COPIES = f"""
INSERT INTO reports ({", ".join(COLUMNS)}, due_at)
SELECT gen_random_uuid(), {", ".join(name for name in COLUMNS if name != "report_id")}, due_at + interval '1 second'
FROM (SELECT * FROM reports LIMIT $1) AS r, generate_series(1, $2)
"""  # noqa: S608  built from the broker's own names only


def supplier_of(number: int) -> str:
    return f"f{job.jobcenter_of(number)}"


def rows(safe: FieldSealer, first: int, count: int) -> list[tuple[object, ...]]:
    return [_row(safe, number) for number in range(first, first + count)]


def _row(safe: FieldSealer, number: int) -> tuple[object, ...]:
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
    return report_entry(new, request_id, safe).row(1)


def safe() -> FieldSealer:
    return FieldSealer(Sealer(KeySettings.model_validate(KEYS)))


async def insert(connection: asyncpg.Connection[asyncpg.Record], some: Sequence[tuple[object, ...]]) -> None:
    """As the broker inserts them, with its word to the schedulers."""
    arrays = [list(column) for column in zip(*some, strict=True)]
    await connection.execute(INSERT, timedelta(0), *arrays)
    await connection.execute("SELECT pg_notify($1, '')", CHANNEL)


async def make(dsn: str, count: int, copies: int = 0) -> None:
    """So many reports that can be delivered, spread over all suppliers, and so many copies behind them."""
    connection = await asyncpg.connect(dsn, command_timeout=1200)
    try:
        its = safe()
        await connection.execute(LANES, [supplier_of(number) for number in range(job.SYSTEMS)])
        for first in range(0, count, AT_ONCE):
            await insert(connection, rows(its, first, min(AT_ONCE, count - first)))
        if copies:
            each = min(count, AT_ONCE)
            await connection.execute(COPIES, each, max(1, copies // each))
    finally:
        await connection.close()
