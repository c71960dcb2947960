"""Indexes on tables that processes work on when an upgrade adds the index: built beside them, after the migrations.

CREATE INDEX CONCURRENTLY does not block writers, but cannot run in a transaction, so these are no migrations. Without
them the ledger gives the same answers, slower. A new database gets them together with its tables.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.ledger.postgres.advisory_locks import BUILD_INDEXES

TRY_AGAIN_S = 0.2

INDEXES = {
    "reports_dead_idx": "ON reports (last_failed_at) WHERE state = 'dead'",
    "reports_discarded_idx": "ON reports (discarded_at) WHERE state = 'discarded'",
    "requests_unverified_idx": "ON requests (settled_at) WHERE state = 'unverified'",
    # Dead letters in the order of their lists, with every column that a list or a group shows, so that the wide rows
    # themselves are not read.
    "reports_letters_idx": """
        ON reports (coalesce(last_failed_at, settled_at, created_at), report_id)
        INCLUDE (supplier, jobcenter_code, type, error_code, cause, cause_class, fault, attempts, created_at,
            first_failed_at, last_failed_at, settled_at) WHERE state = 'dead'""",
    "dead_messages_letters_idx": """
        ON dead_messages (last_seen_at, letter_id)
        INCLUDE (queue, cause, cause_class, type, jobcenter_code, attempts, first_seen_at)
        WHERE state IN ('open', 'replaying')""",
    "attempt_results_supplier_idx": """
        ON attempt_results (supplier, finished_at) INCLUDE (verdict, milliseconds) WHERE supplier IS NOT NULL""",
    # For conservation, which reads the rows that ended in the last hour: BRIN takes a few bytes for each range of
    # pages, and an insert costs nothing.
    **{
        f"{table}_{column}_brin": f"ON {table} USING brin ({column}) WITH (pages_per_range = 32)"
        for table, column in (
            ("requests", "settled_at"),
            ("reports", "settled_at"),
            ("attempts", "started_at"),
            ("attempt_results", "finished_at"),
        )
    },
}

BROKEN = """
SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relname = ANY(:names) AND c.relnamespace = to_regnamespace(current_schema())
"""
THERE = """
SELECT relname FROM pg_class WHERE relkind = 'i' AND relname = ANY(:names)
    AND relnamespace = to_regnamespace(current_schema())
"""


async def build_at_once(connection: AsyncConnection) -> None:
    """Build all, in the transaction that made the tables: they are empty."""
    for name, what in INDEXES.items():
        await connection.execute(text(f"CREATE INDEX {name} {what}"))


async def build_beside(engine: AsyncEngine) -> None:
    """Build what is missing or was left half built: one process at a time, the others wait and find it built."""
    names = {"names": list(INDEXES)}
    async with engine.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        if len(set(await connection.scalars(text(THERE), names)) - await _broken(connection)) == len(INDEXES):
            return
        # Polled: CREATE INDEX CONCURRENTLY waits for every running statement, so one that waits for the lock would
        # block the builder.
        while not await _locked(connection):  # noqa: ASYNC110  the lock is PostgreSQL's
            await asyncio.sleep(TRY_AGAIN_S)
        for name in await _broken(connection):
            await connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
        for name, what in INDEXES.items():
            await connection.execute(text(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} {what}"))


async def _locked(connection: AsyncConnection) -> bool:
    return bool(await connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": BUILD_INDEXES}))


async def _broken(connection: AsyncConnection) -> set[str]:
    return set(await connection.scalars(text(BROKEN), {"names": list(INDEXES)}))
