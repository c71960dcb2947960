"""Deletes what has ended and whose time is over (settings `[retention]`); what is still open is never touched.

A row goes whole, its sealed content with its clear columns: one age a table, nothing half deleted to explain. So a
repeated request is recognised for `requests_days` after it was settled; after that it is a new one. Every run that
came to its end stands in the operators' log with its counts: that is also how the next one knows when it is due.
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
from broker.ledger.upkeep.walking import FIRST_MOMENT, FIRST_UUID, Page, RowKey, Walk, walking
from broker.telemetry.log import get_logger
from config.settings import Settings

log = get_logger("ledger.retention")

ACTION, SUBJECT = "ledger.purge", "ledger"
BY_ITSELF = Actor("jobnet-broker", "daily retention")
LOOK_AGAIN_S = 600.0
"""How long a process believes what the ledger said of the next run: another one, or a person, may have run it."""

OLD = "< (SELECT ledger_now()) - $3::interval"
OPEN = "NOT IN ('delivered', 'discarded')"
GOING = "('prepared', 'canary', 'running')"

# A report that is not delivered yet, or dead and perhaps to be replayed, needs what it tells of; so does a letter.
NOBODY_NEEDS = f"""
    NOT EXISTS (SELECT FROM reports AS p WHERE p.request_id = r.request_id AND p.state {OPEN})
    AND NOT EXISTS (SELECT FROM reports AS p WHERE p.joins = r.request_id AND p.state {OPEN})
    AND NOT EXISTS (SELECT FROM reports AS p WHERE p.report_id = r.report_id AND p.state {OPEN})
    AND NOT EXISTS (SELECT FROM dead_messages AS m
                    WHERE m.request_id = r.request_id AND m.state IN ('open', 'replaying'))
"""

REQUESTS = f"""
DELETE FROM requests AS r WHERE r.request_id BETWEEN $1 AND $2
    AND r.state = 'settled' AND r.settled_at {OLD} AND r.event_due_at IS NULL AND {NOBODY_NEEDS}
"""

# By way of the row that a restore would delete: either the restore finds it, or this does.
DISCARDED_BOOKINGS = f"""
WITH aside AS (
    DELETE FROM discarded_bookings AS d USING requests AS r
    WHERE d.request_id BETWEEN $1 AND $2 AND r.request_id = d.request_id AND d.discarded_at {OLD}
        AND r.state = 'unverified' AND r.event_due_at IS NULL AND {NOBODY_NEEDS}
    RETURNING d.request_id)
DELETE FROM requests USING aside WHERE requests.request_id = aside.request_id AND requests.state = 'unverified'
"""

NOT_IN_A_REPLAY = f"""
    NOT EXISTS (SELECT FROM replay_items AS i JOIN replays AS v USING (replay_id)
                WHERE i.letter_id = it.{{key}} AND v.state IN {GOING})
"""

REPORTS = f"""
DELETE FROM reports AS it WHERE it.report_id BETWEEN $1 AND $2
    AND it.state IN ('delivered', 'discarded') AND coalesce(it.discarded_at, it.settled_at) {OLD}
    AND it.event_due_at IS NULL AND {NOT_IN_A_REPLAY.format(key="report_id")}
"""

DEAD_MESSAGES = f"""
DELETE FROM dead_messages AS it WHERE it.letter_id BETWEEN $1 AND $2
    AND it.state IN ('replayed', 'discarded') AND it.changed_at {OLD}
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
    """One table on the way: walked by `key`, what the longest of `days` (names of settings) made old is deleted."""

    name: str
    table: str
    key: str
    days: tuple[str, ...]
    statement: str
    first: RowKey = FIRST_UUID


# Reports before requests and replays before what they replay, so that one run takes along what the other kept.
STEPS = (
    RetentionStep("replay_items", "replay_items", "letter_id", ("replays_days",), REPLAY_ITEMS),
    RetentionStep("replays", "replays", "replay_id", ("replays_days",), REPLAYS),
    RetentionStep("dead_messages", "dead_messages", "letter_id", ("letters_days",), DEAD_MESSAGES),
    RetentionStep("reports", "reports", "report_id", ("reports_days",), REPORTS),
    RetentionStep("attempt_results", "attempt_results", "report_id", ("attempts_days",), ATTEMPT_RESULTS),
    RetentionStep("attempts", "attempts", "report_id", ("attempts_days",), ATTEMPTS),
    RetentionStep("requests", "requests", "request_id", ("requests_days",), REQUESTS),
    RetentionStep(
        "discarded_bookings",
        "discarded_bookings",
        "request_id",
        ("letters_days", "requests_days"),
        DISCARDED_BOOKINGS,
    ),
    RetentionStep("operator_log", "operator_log", "id", ("operator_log_days",), OPERATOR_LOG, first=0),
    RetentionStep("lane_changes", "lane_changes", "id", ("lane_changes_days",), LANE_CHANGES, first=0),
    RetentionStep("flow", "flow", "minute", ("flow_days",), FLOW, first=FIRST_MOMENT),
    RetentionStep("workers", "workers", "id", ("requests_days",), WORKERS),
)

Counts = dict[str, int]
OnDeleted = Callable[[str, int], None]


class Retention:
    """The purge of one ledger, by one process at a time. Raises LedgerAway; may be cut off and begun again."""

    def __init__(self, settings: Settings, target: Server) -> None:
        self._settings = settings.retention
        self._target = target
        self._look_at = 0.0

    async def purge_when_due(self) -> Counts | None:
        """The daily purge, if it is due and nobody else does it; most calls only look at the clock.

        A run takes as long as it takes, at half of what PostgreSQL would give: call it from a loop of its own.
        """
        if time.monotonic() < self._look_at:
            return None
        self._look_at = time.monotonic() + LOOK_AGAIN_S
        async with walking(self._target) as walk:
            if (left := await self._left_s(walk)) > 0:
                self._look_at = time.monotonic() + min(left, LOOK_AGAIN_S)
                return None
            if not await walk.only_one(PURGE) or await self._left_s(walk) > 0:
                return None
            counts = await self._purge(walk, BY_ITSELF, polite=True)
        self._look_at = time.monotonic() + min(self._settings.purge_every_seconds, LOOK_AGAIN_S)
        log.info("purged", count=sum(counts.values()))
        return counts

    async def _left_s(self, walk: Walk) -> float:
        """Seconds until the next run is due."""
        age = await walk.run(lambda connection: connection.fetchval(AGE_S, SUBJECT, ACTION))
        return 0.0 if age is None else max(0.0, self._settings.purge_every_seconds - age)

    async def purge(self, by: Actor, tell: OnDeleted | None = None) -> Counts | None:
        """At once; None if another process is at it. `tell` hears of each table that is done."""
        async with walking(self._target) as walk:
            return await self._purge(walk, by, tell=tell) if await walk.only_one(PURGE) else None

    async def _purge(
        self, walk: Walk, by: Actor, *, tell: OnDeleted | None = None, polite: bool = False
    ) -> Counts:
        counts = {}
        for step in STEPS:
            counts[step.name] = await self._step(walk, step, polite)
            if tell is not None:
                tell(step.name, counts[step.name])
        await walk.run(partial(_remember, by, counts))
        return counts

    async def _step(self, walk: Walk, step: RetentionStep, polite: bool) -> int:
        age = timedelta(days=max(getattr(self._settings, name) for name in step.days))
        gone = 0
        async for page in walk.pages(step.table, step.key, self._settings.purge_batch, first=step.first):
            began = time.monotonic()
            gone += await walk.try_run(partial(_delete, step.statement, page, age), 0)
            await asyncio.sleep(time.monotonic() - began if polite else 0)
        return gone


async def _delete(statement: str, page: Page, age: timedelta, connection: Connection) -> int:
    async with connection.transaction():
        await connection.execute("SELECT set_config('jobnet.retention', 'on', true)")
        return int((await connection.execute(statement, page.low, page.high, age)).split()[-1])


async def _remember(by: Actor, counts: Counts, connection: Connection) -> None:
    async with connection.transaction():
        await write_down(connection, by, ACTION, SUBJECT, dict(counts))
