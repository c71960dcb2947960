"""Helpers for tests of dead letters: dead reports, unverified bookings and messages, inserted into the tables."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

from broker.ledger.audit_log import Actor
from broker.ledger.dead_letters.letter_model import Filter
from broker.ledger.operators.operations import Operations
from broker.sealing import Sealer
from config.settings import Settings
from tests.ledger.support import ANN, Sql, sealer_for

BO = Actor("bo", "the supplier is repaired")

REPORTS = """
INSERT INTO reports (report_id, kind, supplier, jobcenter_code, type, error_code, occurred_at, content,
    citizen_token, citizen_key, state, due_at, cause, cause_class, fault, attempts, first_failed_at,
    last_failed_at, settled_at)
SELECT id, 'automatic', $2, $3, 'booking.book.v1', 4, now(), '\\x00', '\\x00', 't1', $4, now(), $5, $6, $7, 1,
    now(), now(), now()
FROM unnest($1::uuid[]) AS id
"""

BOOKING = """
INSERT INTO requests (request_id, type, family, jobcenter_code, planner, booking_system, supplier, state,
    citizen_token, citizen_key, business_hmac, business_key, message, answer, status, deadline_at, settled_at,
    uncertain_since)
VALUES ($1, 'booking.book.v1', 'booking', '10100', 'p', 'b', 'nordsoft', 'unverified', '\\x00', 't1', '\\x00',
    't1', '\\x00', '\\x00', 'uncertain', now(), now(), now())
"""


@contextlib.asynccontextmanager
async def operations_of(settings: Settings) -> AsyncIterator[Operations]:
    async with Operations.open(settings, sealer_for(settings)) as operations:
        yield operations


async def dead_reports(
    sql: Sql,
    count: int = 1,
    *,
    supplier: str | None = "nordsoft",
    cause: str = "exhausted",
    cause_class: str = "moment",
    fault: str | None = None,
    jobcenter: str = "10100",
    state: str = "dead",
) -> list[UUID]:
    """So many dead reports of one group."""
    ids = [uuid4() for _ in range(count)]
    await sql.execute(REPORTS, ids, supplier, jobcenter, state, cause, cause_class, fault)
    if supplier:
        await sql.execute("INSERT INTO lanes (supplier) VALUES ($1) ON CONFLICT DO NOTHING", supplier)
    return ids


async def sealed_report(sql: Sql, sealer: Sealer, **content: Any) -> UUID:
    """A dead report whose content opens, of a citizen who is found by number."""
    [report_id] = await dead_reports(sql)
    plain = json.dumps({"cpr": ANN, "fejltekst": "Ingen tider.", **content}).encode()
    citizen = sealer.token(ANN.encode(), purpose="citizen")
    await sql.execute(
        "UPDATE reports SET content = $2, citizen_token = $3, citizen_key = $4 WHERE report_id = $1",
        report_id,
        sealer.seal(plain, of=str(report_id), field="report"),
        citizen.digest,
        citizen.key_id,
    )
    return report_id


async def dead_booking(sql: Sql) -> UUID:
    request_id = uuid4()
    await sql.execute(BOOKING, request_id)
    return request_id


async def replay(operations: Operations, *, by: Actor = BO, rate: float = 1000, **wanted: Any) -> UUID:
    """Prepared and started."""
    preview = await operations.replays.prepare(Filter(**wanted), by, rate=rate)
    await operations.replays.start(preview.replay_id, by)
    return preview.replay_id


async def step(operations: Operations, *, canary_wait: float = 60, supplier: str | None = None) -> int:
    """One step of the replay that waits longest, without publishing; how many letters it set free."""
    done = await operations.replays.step(lambda _: supplier, canary_wait=canary_wait)
    return done.freed if done else 0


async def delivered(sql: Sql, report_id: UUID) -> None:
    """What a delivery does to the row."""
    await sql.execute(
        "UPDATE reports SET state = 'delivered', settled_at = clock_timestamp() WHERE report_id = $1",
        report_id,
    )


async def dead_again(sql: Sql, report_id: UUID, cause: str = "exhausted") -> None:
    """What an attempt that fails for good does to the row."""
    await sql.execute(
        "UPDATE reports SET state = 'dead', cause = $2, last_failed_at = clock_timestamp(),"
        " settled_at = clock_timestamp() WHERE report_id = $1",
        report_id,
        cause,
    )


async def letters_by_queue(sql: Sql) -> dict[str, int]:
    """Open letters by queue: the depth that each dead-letter queue should have."""
    rows = await sql.fetch("SELECT queue, count(*) AS count FROM letters GROUP BY queue")
    return {row["queue"]: row["count"] for row in rows}


async def state_of(sql: Sql, report_id: UUID) -> str:
    return str(await sql.fetchval("SELECT state FROM reports WHERE report_id = $1", report_id))
