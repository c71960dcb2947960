"""A ledger as it looks after a bad day, made by PostgreSQL itself: for tests and measurements of what pages read.

Rows are as wide as real ones; the sealed columns hold noise that nobody opens.
"""

from __future__ import annotations

from tests.ledger.support import Sql

REQUESTS = """
INSERT INTO requests (request_id, type, family, jobcenter_code, planner, booking_system, supplier, state,
    citizen_token, citizen_key, business_hmac, business_key, message, answer, status, deadline_at, created_at,
    settled_at)
SELECT gen_random_uuid(), 'booking.book.v1', 'booking', (10100 + n % 90)::text, 'p', 'b', 'supplier-' || n % 8,
    'settled', decode(md5(n::text), 'hex'), 't1', decode(md5(n::text), 'hex'), 't1',
    decode(repeat(md5(n::text), 12), 'hex'), decode(repeat(md5(n::text), 12), 'hex'), 'done',
    at, at - interval '30 seconds', at
FROM generate_series(1, $1::integer) AS n, LATERAL (SELECT now() - n * interval '2 seconds' AS at) AS t
"""

# A few causes with many letters each and a long tail, spread over six days.
LETTERS = """
INSERT INTO reports (report_id, kind, request_id, supplier, jobcenter_code, type, error_code, occurred_at, content,
    citizen_token, citizen_key, state, due_at, cause, cause_class, fault, attempts, created_at, first_failed_at,
    last_failed_at, settled_at)
SELECT gen_random_uuid(), 'automatic', gen_random_uuid(), 'supplier-' || n % 8, (10100 + n % 90)::text,
    'booking.book.v1', 2 + n % 3, at, decode(repeat(md5(n::text), 24), 'hex'), decode(md5(n::text), 'hex'), 't1',
    $2, at, CASE WHEN n % 10 < 7 THEN 'exhausted' WHEN n % 10 < 9 THEN 'rejected' ELSE 'status 4' || n % 30 END,
    CASE WHEN n % 10 < 7 THEN 'moment' ELSE 'message' END, CASE WHEN n % 5 = 0 THEN 'ukendt-booking' END, 1 + n % 12,
    at - interval '1 day', at - interval '1 day', CASE $2 WHEN 'waiting' THEN NULL ELSE at END,
    CASE $2 WHEN 'waiting' THEN NULL ELSE at END
FROM generate_series(1, $1::integer) AS n, LATERAL (SELECT now() - n * interval '5 seconds' AS at) AS t
"""

ATTEMPTS = """
WITH tried AS (
    INSERT INTO attempts (report_id, number, owner, started_at, x_request_id, probe)
    SELECT report_id, 1, gen_random_uuid(), last_failed_at, 'x', false FROM reports
    WHERE state IN ('dead', 'delivered') RETURNING report_id, started_at)
INSERT INTO attempt_results (report_id, number, finished_at, verdict, cause, status, what, milliseconds, counted,
    applied, token, supplier)
SELECT t.report_id, 1, t.started_at, CASE r.state WHEN 'dead' THEN 'dead' ELSE 'delivered' END, r.cause, 500,
    'status 500', (random() * 900)::integer, true, true, gen_random_uuid(), r.supplier
FROM tried AS t JOIN reports AS r USING (report_id)
"""

FLOW = """
INSERT INTO flow (minute, worker, what, label, count)
SELECT date_trunc('minute', now()) - m * interval '1 minute', w, what, label, 10
FROM generate_series(0, $1::integer) AS m,
    (SELECT gen_random_uuid() AS w FROM generate_series(1, 4)) AS workers,
    (VALUES ('request', 'booking.book.v1'), ('request', 'query.offers.v1'), ('answer', 'done'), ('answer', 'failed'),
        ('created', 'supplier-1'), ('delivered', 'supplier-1'), ('dead', 'supplier-1')) AS each (what, label)
"""


async def fill(sql: Sql, *, requests: int, letters: int, delivered: int = 0, waiting: int = 0) -> None:
    """So many settled requests, dead letters, delivered and waiting reports, with their attempts and lanes."""
    await sql.execute(REQUESTS, requests)
    for count, state in ((letters, "dead"), (delivered, "delivered"), (waiting, "waiting")):
        await sql.execute(LETTERS, count, state)
    await sql.execute(ATTEMPTS)
    await sql.execute("INSERT INTO lanes (supplier) SELECT DISTINCT supplier FROM reports")
    await sql.execute(FLOW, 3 * 24 * 60)
    await sql.execute("VACUUM ANALYZE")
