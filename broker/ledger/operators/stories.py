"""The whole story behind an id: its request, reports with all attempts, letters, replays, operators' log.

Reads clear columns only, so the story does not reveal which citizen it is about.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from broker.ledger.audit_log import Refusal
from broker.ledger.dead_letters.letter_model import COLUMNS, Letter
from broker.ledger.model import State, Story
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.reports.report_model import AttemptRow, ReportRow, ReportState, ReportStory
from schemas.codes import ReportKind

MOST = 1000

# The id may be that of a request, a report or a foreign message; the other ids are the requests behind it.
IDS = """
SELECT $1::uuid AS id
UNION SELECT request_id FROM reports WHERE report_id = $1 AND request_id IS NOT NULL
UNION SELECT joins FROM reports WHERE report_id = $1 AND joins IS NOT NULL
UNION SELECT request_id FROM dead_messages WHERE letter_id = $1 AND request_id IS NOT NULL
"""
STORY = ", ".join(f.name for f in fields(Story))
REQUESTS = f"SELECT {STORY} FROM requests WHERE request_id = ANY($1::uuid[])"

REPORT = ", ".join(f.name for f in fields(ReportRow))
REPORTS_OF = f"""
SELECT {REPORT} FROM reports WHERE report_id IN (
    SELECT unnest($1::uuid[])
    UNION SELECT p.report_id FROM reports AS p WHERE p.request_id = ANY($1::uuid[])
    UNION SELECT p.report_id FROM reports AS p WHERE p.joins = ANY($1::uuid[])
    UNION SELECT q.report_id FROM requests AS q WHERE q.request_id = ANY($1::uuid[]))
ORDER BY created_at LIMIT {MOST}
"""
REPORTS = f"""
SELECT {REPORT} FROM reports
WHERE ($1::text IS NULL OR supplier = $1) AND ($2::text IS NULL OR state = $2)
    AND ($3::text IS NULL OR jobcenter_code = $3) AND ($4::text IS NULL OR kind = $4)
ORDER BY created_at DESC LIMIT $5
"""
ONE_REPORT = f"SELECT {REPORT} FROM reports WHERE report_id = $1"
ATTEMPTS = """
SELECT a.report_id, a.number, a.owner, a.started_at, a.x_request_id, a.probe, r.finished_at, r.verdict, r.cause,
    r.status, r.fault, r.what, r.milliseconds, r.counted, r.applied
FROM attempts AS a LEFT JOIN attempt_results AS r USING (report_id, number)
WHERE a.report_id = ANY($1::uuid[]) ORDER BY a.report_id, a.number
"""
MESSAGES = (
    "SELECT letter_id FROM dead_messages WHERE letter_id = ANY($1::uuid[]) OR request_id = ANY($1::uuid[])"
)
LETTERS = f"""
SELECT {COLUMNS} FROM letters WHERE letter_id = ANY($1::uuid[])
UNION ALL SELECT {COLUMNS} FROM discarded_letters WHERE letter_id = ANY($1::uuid[])
"""
REPLAYED = """
SELECT replay_id, letter_id, state, note, replayed_at FROM replay_items
WHERE letter_id = ANY($1::uuid[]) AND replay_id NOT IN (SELECT r.replay_id FROM replays AS r WHERE r.state = 'prepared')
ORDER BY replayed_at NULLS LAST LIMIT 100
"""
LOGGED = """
SELECT id, at, actor, action, reason, subject FROM operator_log
WHERE subject = ANY($1::text[]) ORDER BY id LIMIT 100
"""


@dataclass(frozen=True, slots=True)
class ReplayPart:
    """A letter's part in a replay, and the result."""

    replay_id: UUID
    letter_id: UUID
    state: str
    note: str | None
    replayed_at: datetime | None


@dataclass(frozen=True, slots=True)
class OperatorAct:
    """An entry of the operators' log about one of the story's ids."""

    id: int
    at: datetime
    actor: str
    action: str
    reason: str
    subject: str


@dataclass(frozen=True, slots=True)
class WholeStory:
    """All rows that belong to one id, oldest first."""

    requests: tuple[Story, ...]
    reports: tuple[ReportStory, ...]
    letters: tuple[Letter, ...]
    replays: tuple[ReplayPart, ...]
    log: tuple[OperatorAct, ...]


class Stories:
    """Reads stories and reports. Raises LedgerAway, and Refusal for an unknown id."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def whole(self, any_id: UUID) -> WholeStory:
        """The story of a requestId, reportId or letter id."""
        story = await self._pool.run(lambda connection: self._whole(connection, any_id))
        if not (story.requests or story.reports or story.letters or story.replays):
            raise Refusal(f"the ledger knows no request, report or letter {any_id}")
        return story

    async def _whole(self, connection: Connection, any_id: UUID) -> WholeStory:
        ids = [row["id"] for row in await connection.fetch(IDS, any_id)]
        requests = await connection.fetch(REQUESTS, ids)
        reports = await _with_attempts(connection, await connection.fetch(REPORTS_OF, ids))
        messages = [row["letter_id"] for row in await connection.fetch(MESSAGES, ids)]
        all_ids = list({*ids, *messages, *(story.report.report_id for story in reports)})
        return WholeStory(
            tuple(Story(**{**row, "state": State(row["state"])}) for row in requests),
            tuple(reports),
            tuple(Letter(**row) for row in await connection.fetch(LETTERS, all_ids)),
            tuple(ReplayPart(**row) for row in await connection.fetch(REPLAYED, all_ids)),
            tuple(OperatorAct(**row) for row in await connection.fetch(LOGGED, list(map(str, all_ids)))),
        )

    async def reports(
        self,
        *,
        supplier: str | None = None,
        state: str | None = None,
        jobcenter_code: str | None = None,
        kind: str | None = None,
        limit: int = 100,
    ) -> list[ReportRow]:
        """The newest reports that match, at most `limit` (and 1000)."""
        values = (supplier, state, jobcenter_code, kind, min(limit, MOST))
        rows = await self._pool.run(lambda connection: connection.fetch(REPORTS, *values))
        return [_report(row) for row in rows]

    async def report(self, report_id: UUID) -> ReportStory:
        """One report and all its attempts."""

        async def work(connection: Connection) -> list[ReportStory]:
            return await _with_attempts(connection, await connection.fetch(ONE_REPORT, report_id))

        found = await self._pool.run(work)
        if not found:
            raise Refusal(f"no report {report_id} is known")
        return found[0]


async def _with_attempts(connection: Connection, rows: list[Any]) -> list[ReportStory]:
    attempts = await connection.fetch(ATTEMPTS, [row["report_id"] for row in rows])
    names = [f.name for f in fields(AttemptRow)]
    return [
        ReportStory(
            _report(row),
            tuple(
                AttemptRow(**{name: a[name] for name in names})
                for a in attempts
                if a["report_id"] == row["report_id"]
            ),
        )
        for row in rows
    ]


def _report(row: Any) -> ReportRow:
    return ReportRow(**{**row, "kind": ReportKind(row["kind"]), "state": ReportState(row["state"])})
