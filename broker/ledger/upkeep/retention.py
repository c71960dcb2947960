"""Retention: deletes ended rows after the age in settings `[retention]` (docs/privacy.md#retention).

Open rows are never deleted. Whole rows are deleted, sealed content and clear columns together, so a repeated request
is recognised for `requests_days` after it was settled. A completed run is recorded in the operators' log with its
counts; the next run is due by the time of that entry.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from broker.ledger.audit_log import Actor, write_down
from broker.ledger.postgres.advisory_locks import PURGE
from broker.ledger.postgres.connections import Connection, Server
from broker.ledger.upkeep.table_walk import FIRST_MOMENT, FIRST_UUID, Page, RowKey, Walk, open_walk
from broker.telemetry.log import get_logger
from config.settings import Settings

log = get_logger("ledger.retention")

ACTION, SUBJECT = "ledger.purge", "ledger"
DAILY = Actor("jobnet-broker", "daily retention")
CHECK_AGAIN_S = 600.0
"""How often a process reads from the ledger when the next run is due: another process or a person may have run it."""

OLD = "< (SELECT ledger_now()) - $3::interval"
OPEN = "NOT IN ('delivered', 'discarded')"
ACTIVE = "('prepared', 'canary', 'running')"

# A request is kept while a report or dead message that refers to it is open: it may still be delivered or replayed.
NOT_NEEDED = f"""
    NOT EXISTS (SELECT FROM reports AS p WHERE p.request_id = r.request_id AND p.state {OPEN})
    AND NOT EXISTS (SELECT FROM reports AS p WHERE p.joins = r.request_id AND p.state {OPEN})
    AND NOT EXISTS (SELECT FROM reports AS p WHERE p.report_id = r.report_id AND p.state {OPEN})
    AND NOT EXISTS (SELECT FROM dead_messages AS m
                    WHERE m.request_id = r.request_id AND m.state IN ('open', 'replaying'))
"""

REQUESTS = f"""
DELETE FROM requests AS r WHERE r.request_id BETWEEN $1 AND $2
    AND r.state = 'settled' AND r.settled_at {OLD} AND r.event_due_at IS NULL AND {NOT_NEEDED}
"""

# Deletes first the row that a restore would delete, so that only one of the two succeeds.
DISCARDED_BOOKINGS = f"""
WITH aside AS (
    DELETE FROM discarded_bookings AS d USING requests AS r
    WHERE d.request_id BETWEEN $1 AND $2 AND r.request_id = d.request_id AND d.discarded_at {OLD}
        AND r.state = 'unverified' AND r.event_due_at IS NULL AND {NOT_NEEDED}
    RETURNING d.request_id)
DELETE FROM requests USING aside WHERE requests.request_id = aside.request_id AND requests.state = 'unverified'
"""

NOT_IN_A_REPLAY = f"""
    NOT EXISTS (SELECT FROM replay_items AS i JOIN replays AS v USING (replay_id)
                WHERE i.letter_id = ended.{{key}} AND v.state IN {ACTIVE})
"""

REPORTS = f"""
DELETE FROM reports AS ended WHERE ended.report_id BETWEEN $1 AND $2
    AND ended.state IN ('delivered', 'discarded') AND coalesce(ended.discarded_at, ended.settled_at) {OLD}
    AND ended.event_due_at IS NULL AND {NOT_IN_A_REPLAY.format(key="report_id")}
"""

DEAD_MESSAGES = f"""
DELETE FROM dead_messages AS ended WHERE ended.letter_id BETWEEN $1 AND $2
    AND ended.state IN ('replayed', 'discarded') AND ended.changed_at {OLD}
    AND {NOT_IN_A_REPLAY.format(key="letter_id")}
"""

ATTEMPT_RESULTS = f"""
DELETE FROM attempt_results AS a WHERE a.report_id BETWEEN $1 AND $2 AND a.finished_at {OLD}
    AND NOT EXISTS (SELECT FROM reports AS p WHERE p.report_id = a.report_id AND p.state {OPEN})
"""

ATTEMPTS = f"""
DELETE FROM attempts AS a WHERE a.report_id BETWEEN $1 AND $2 AND a.started_at {OLD}
    AND NOT EXISTS (SELECT FROM reports AS p WHERE p.report_id = a.report_id AND p.state {OPEN})
    AND NOT EXISTS (SELECT FROM attempt_results AS b WHERE b.report_id = a.report_id AND b.number = a.number)
"""

REPLAY_ITEMS = f"""
DELETE FROM replay_items AS i USING replays AS v WHERE i.letter_id BETWEEN $1 AND $2
    AND v.replay_id = i.replay_id AND v.state NOT IN ('canary', 'running')
    AND coalesce(v.ended_at, v.created_at) {OLD}
"""

REPLAYS = f"""
DELETE FROM replays AS v WHERE v.replay_id BETWEEN $1 AND $2 AND v.state NOT IN ('canary', 'running')
    AND coalesce(v.ended_at, v.created_at) {OLD}
    AND NOT EXISTS (SELECT FROM replay_items AS i WHERE i.replay_id = v.replay_id)
"""

OPERATOR_LOG = f"DELETE FROM operator_log WHERE id BETWEEN $1 AND $2 AND at {OLD}"

LANE_CHANGES = f"DELETE FROM lane_changes WHERE id BETWEEN $1 AND $2 AND at {OLD}"

FLOW = f"DELETE FROM flow WHERE minute BETWEEN $1 AND $2 AND minute {OLD}"

WORKERS = f"""
DELETE FROM workers AS w WHERE w.id BETWEEN $1 AND $2 AND w.heartbeat_at {OLD}
    AND NOT EXISTS (SELECT FROM requests AS r WHERE r.owner = w.id AND r.state = 'running')
    AND NOT EXISTS (SELECT FROM reports AS p WHERE p.owner = w.id AND p.state = 'delivering')
"""

AGE_S = """
SELECT extract(epoch FROM ledger_now() - max(at))::float8 FROM operator_log WHERE subject = $1 AND action = $2
"""


@dataclass(frozen=True, slots=True)
class RetentionStep:
    """Deletes old rows of one table, page by page in order of `key`.

    `days`: names of settings; the longest of them is the age.
    """

    table: str
    key: str
    days: tuple[str, ...]
    statement: str
    first: RowKey = FIRST_UUID


# Reports before requests, and replays before their letters: rows that kept others are deleted first.
STEPS = (
    RetentionStep("replay_items", "letter_id", ("replays_days",), REPLAY_ITEMS),
    RetentionStep("replays", "replay_id", ("replays_days",), REPLAYS),
    RetentionStep("dead_messages", "letter_id", ("letters_days",), DEAD_MESSAGES),
    RetentionStep("reports", "report_id", ("reports_days",), REPORTS),
    RetentionStep("attempt_results", "report_id", ("attempts_days",), ATTEMPT_RESULTS),
    RetentionStep("attempts", "report_id", ("attempts_days",), ATTEMPTS),
    RetentionStep("requests", "request_id", ("requests_days",), REQUESTS),
    RetentionStep(
        "discarded_bookings",
        "request_id",
        ("letters_days", "requests_days"),
        DISCARDED_BOOKINGS,
    ),
    RetentionStep("operator_log", "id", ("operator_log_days",), OPERATOR_LOG, first=0),
    RetentionStep("lane_changes", "id", ("lane_changes_days",), LANE_CHANGES, first=0),
    RetentionStep("flow", "minute", ("flow_days",), FLOW, first=FIRST_MOMENT),
    RetentionStep("workers", "id", ("requests_days",), WORKERS),
)

Counts = dict[str, int]
OnDeleted = Callable[[str, int], None]
"""Called with a table and its number of deleted rows, when the table is done."""


class Retention:
    """The purge of one ledger, by one process at a time. Raises LedgerAway; an interrupted run may be repeated."""

    def __init__(self, settings: Settings, server: Server) -> None:
        self._settings = settings.retention
        self._server = server
        self._check_at = 0.0

    async def purge_when_due(self) -> Counts | None:
        """The daily purge; None if it is not due or another process does it. Most calls only read the clock.

        A run may take long, because it pauses after each page: call it from a task of its own.
        """
        if time.monotonic() < self._check_at:
            return None
        self._check_at = time.monotonic() + CHECK_AGAIN_S
        async with open_walk(self._server) as walk:
            if (left := await self._left_s(walk)) > 0:
                self._check_at = time.monotonic() + min(left, CHECK_AGAIN_S)
                return None
            if not await walk.try_lock(PURGE) or await self._left_s(walk) > 0:
                return None
            counts = await self._purge(walk, DAILY, pauses=True)
        self._check_at = time.monotonic() + min(self._settings.purge_every_seconds, CHECK_AGAIN_S)
        log.info("purged", count=sum(counts.values()))
        return counts

    async def _left_s(self, walk: Walk) -> float:
        """Seconds until the next run is due."""
        age = await walk.run(lambda connection: connection.fetchval(AGE_S, SUBJECT, ACTION))
        return 0.0 if age is None else max(0.0, self._settings.purge_every_seconds - age)

    async def purge(self, by: Actor, on_deleted: OnDeleted | None = None) -> Counts | None:
        """Purge now, without pauses; None if another process does it."""
        async with open_walk(self._server) as walk:
            return await self._purge(walk, by, on_deleted=on_deleted) if await walk.try_lock(PURGE) else None

    async def _purge(
        self, walk: Walk, by: Actor, *, on_deleted: OnDeleted | None = None, pauses: bool = False
    ) -> Counts:
        counts = {}
        for step in STEPS:
            counts[step.table] = await self._step(walk, step, pauses)
            if on_deleted is not None:
                on_deleted(step.table, counts[step.table])
        await walk.run(partial(_record, by, counts))
        return counts

    async def _step(self, walk: Walk, step: RetentionStep, pauses: bool) -> int:
        age = timedelta(days=max(getattr(self._settings, name) for name in step.days))
        deleted = 0
        async for page in walk.pages(step.table, step.key, self._settings.purge_batch, first=step.first):
            began = time.monotonic()
            deleted += await walk.try_run(partial(_delete, step.statement, page, age), 0)
            # The daily purge uses at most half of PostgreSQL's time: it pauses as long as the page took.
            await asyncio.sleep(time.monotonic() - began if pauses else 0)
        return deleted


async def _delete(statement: str, page: Page, age: timedelta, connection: Connection) -> int:
    async with connection.transaction():
        await connection.execute("SELECT set_config('jobnet.retention', 'on', true)")
        return int((await connection.execute(statement, page.low, page.high, age)).split()[-1])


async def _record(by: Actor, counts: Counts, connection: Connection) -> None:
    async with connection.transaction():
        await write_down(connection, by, ACTION, SUBJECT, dict(counts))
