"""Conservation: accepted = answered + in flight for requests, created = delivered + waiting + dead + discarded for reports.

Two looks at once: the rows by their states, and what else was written down (append-only attempts, the report that a
request names, owners' heartbeats). Where they disagree there is a gap, and it has ids. Repairs nothing; what retention
deleted is no gap.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from broker.ledger.postgres.connections import Connection, Server
from broker.ledger.upkeep.walking import walking
from broker.telemetry.log import get_logger
from config.settings import Settings

log = get_logger("ledger.conservation")

NAMED_MOST = 1000
"""Ids of one kind that a look names; what is beyond is counted in the next look, when these are mended."""
TOLD_MOST = 20
"""Ids in one line of the log; the command names them all."""
GRACE = timedelta(seconds=60)
"""How much longer than its own limit anything may take before it is called stuck: sweeps come every tick."""
ALWAYS_BACK = timedelta(hours=1)
"""How far back the check that runs always compares ended rows; `ledger conserve` compares all."""

ANSWERED, IN_FLIGHT, PUT_ASIDE = ("settled",), ("running", "uncertain"), ("unverified",)
WAITING = ("joining", "waiting", "handed", "delivering")
LOOK = "conservation"
"""The name of its row in last_looks."""
KNOWN = {
    "requests": (*ANSWERED, *IN_FLIGHT, *PUT_ASIDE),
    "reports": (*WAITING, "delivered", "dead", "discarded"),
}

COUNTS = """
SELECT 'requests' AS what, state, count(*) AS rows FROM requests GROUP BY 2
UNION ALL SELECT 'reports', state, count(*) FROM reports GROUP BY 2
"""

# Each state from the index that is made for it. A state that nobody knows cannot be: the tables refuse it.
OPEN_COUNTS = " UNION ALL ".join(
    f"SELECT '{table}' AS what, '{state}' AS state, count(*) AS rows FROM {table} WHERE state = '{state}'"
    for table, states in (("requests", (*IN_FLIGHT, *PUT_ASIDE)), ("reports", (*WAITING, "dead")))
    for state in states
)

REMEMBER = """
INSERT INTO last_looks (name, at, figures) VALUES ($1, ledger_now(), $2::jsonb)
ON CONFLICT (name) DO UPDATE SET at = excluded.at, figures = excluded.figures
"""

# $1: the owner threshold plus grace. A process that is away makes everyone stale, so the threshold is not enough.
NOBODY = """NOT EXISTS (SELECT FROM workers AS o WHERE o.id = {owner} AND o.stopped_at IS NULL
    AND o.heartbeat_at >= clock_timestamp() - $1::interval)"""

# The clock is read once in a statement, so that the ended rows of a while are found by an index (indexes.py).
# Every kind of gap: its name, what it means for a person, and the statement that finds its ids. All take the same
# five values: $1 a dead owner's silence, $2 grace, $3 how far back ended rows are compared, $4 handed over too long,
# $5 the codes that each supplier wants, as text "supplier code".
GAPS: tuple[tuple[str, str, str], ...] = (
    (
        "running-without-owner",
        "past its deadline, not answered, and no living process has it",
        f"""SELECT request_id FROM requests WHERE state = 'running'
            AND deadline_at < clock_timestamp() - $2::interval AND {NOBODY.format(owner="requests.owner")}""",
    ),
    (
        "verification-overdue",
        "uncertain, its verification was due, and no living process looks it up",
        f"""SELECT request_id FROM requests WHERE state = 'uncertain'
            AND coalesce(verify_due_at, uncertain_since, created_at) < clock_timestamp() - $2::interval
            AND {NOBODY.format(owner="requests.owner")}""",
    ),
    (
        "settled-without-answer",
        "ended, and there is no answer to give",
        """SELECT request_id FROM requests WHERE state = 'settled' AND (answer IS NULL OR status IS NULL)
            AND settled_at > (SELECT ledger_now()) - $3::interval""",
    ),
    (
        "report-missing",
        "a request names this report, and there is none",
        """SELECT r.report_id FROM requests AS r WHERE r.report_id IS NOT NULL
            AND r.settled_at > (SELECT ledger_now()) - $3::interval
            AND NOT EXISTS (SELECT FROM reports AS p WHERE p.report_id = r.report_id)""",
    ),
    (
        "receipt-without-report",
        "a citizen got a receipt, and no report was made",
        """SELECT request_id FROM requests WHERE type = 'report.citizen.v1' AND status = 'done'
            AND report_id IS NULL AND settled_at > (SELECT ledger_now()) - $3::interval""",
    ),
    (
        "not-booked-without-report",
        "verification proved it was not carried out, its supplier wants to know, and no report was made",
        """SELECT request_id FROM requests WHERE corrected AND status = 'failed' AND report_id IS NULL
            AND supplier || ' ' || error_code = ANY($5::text[]) AND settled_at > (SELECT ledger_now()) - $3::interval""",
    ),
    (
        "attempt-without-report",
        "an attempt was made at this report, and there is none",
        """SELECT DISTINCT a.report_id FROM attempts AS a WHERE a.started_at > (SELECT ledger_now()) - $3::interval
            AND NOT EXISTS (SELECT FROM reports AS p WHERE p.report_id = a.report_id)""",
    ),
    (
        "delivered-without-attempt",
        "it says delivered, and no attempt does",
        """SELECT p.report_id FROM reports AS p WHERE p.state = 'delivered'
            AND p.settled_at > (SELECT ledger_now()) - $3::interval
            AND NOT EXISTS (SELECT FROM attempt_results AS a
                            WHERE a.report_id = p.report_id AND a.verdict = 'delivered')""",
    ),
    (
        "taken-over-and-still-open",
        "an attempt that counted delivered it, and it is not delivered",
        # Report by report: there are few attempts in a while, and many reports.
        """SELECT a.report_id FROM attempt_results AS a, LATERAL (
                SELECT p.state FROM reports AS p WHERE p.report_id = a.report_id LIMIT 1) AS its
            WHERE a.verdict = 'delivered' AND a.applied AND its.state <> 'delivered'
            AND a.finished_at > (SELECT ledger_now()) - $3::interval""",
    ),
    (
        "delivering-without-owner",
        "being delivered, and no living process does it",
        f"""SELECT report_id FROM reports WHERE state = 'delivering' AND handed_at < ledger_now() - $2::interval
            AND {NOBODY.format(owner="reports.owner")}""",
    ),
    (
        "handed-over-too-long",
        "handed over, never picked up, and not taken back",
        """SELECT report_id FROM reports WHERE state = 'handed'
            AND handed_at < ledger_now() - $2::interval - $4::interval""",
    ),
    (
        "joining-too-long",
        "a citizen's report that still waits for its failed request",
        "SELECT report_id FROM reports WHERE state = 'joining' AND due_at < ledger_now() - $2::interval",
    ),
)
MEANINGS = {kind: meaning for kind, meaning, _ in GAPS} | {
    "unknown-state": "rows in a state that nobody knows"
}


@dataclass(frozen=True, slots=True)
class Gap:
    """Something promised that the ledger cannot account for; `id` of a request or a report, None for a whole state."""

    kind: str
    id: UUID | None

    @property
    def meaning(self) -> str:
        """What is wrong, for a person."""
        return MEANINGS[self.kind]


@dataclass(frozen=True, slots=True)
class Balance:
    """The two sums, and where they do not close. All figures are rows."""

    accepted: int
    answered: int
    in_flight: int
    put_aside: int
    created: int
    delivered: int
    waiting: int
    dead: int
    discarded: int
    gaps: tuple[Gap, ...] = ()

    @property
    def closes(self) -> bool:
        """Whether every request and every report is accounted for."""
        return not self.gaps

    def figures(self) -> dict[str, int]:
        """For a table, JSON or a metric."""
        names = [name for name in self.__slots__ if name != "gaps"]
        return {name: getattr(self, name) for name in names} | {"gaps": len(self.gaps)}


def balance(counts: Mapping[tuple[str, str], int], gaps: Iterable[Gap] = ()) -> Balance:
    """The sums from rows by (table, state). Rows in a state that is in neither sum are a gap by themselves. Pure."""

    def of(table: str, *states: str) -> int:
        return sum(counts.get((table, state), 0) for state in states)

    def total(table: str) -> int:
        return sum(rows for (where, _), rows in counts.items() if where == table)

    strange = [
        Gap("unknown-state", None) for table, states in KNOWN.items() if total(table) != of(table, *states)
    ]
    return Balance(
        accepted=total("requests"),
        answered=of("requests", *ANSWERED),
        in_flight=of("requests", *IN_FLIGHT),
        put_aside=of("requests", *PUT_ASIDE),
        created=total("reports"),
        delivered=of("reports", "delivered"),
        waiting=of("reports", *WAITING),
        dead=of("reports", "dead"),
        discarded=of("reports", "discarded"),
        gaps=(*strange, *gaps),
    )


def wanted(suppliers: Mapping[str, Any]) -> list[str]:
    """`supplier code` for each failure that a supplier of the directory is told of by itself."""
    return [f"{name} {int(code)}" for name, config in suppliers.items() for code in config.report_codes]


class Conservation:
    """Looks at one ledger. `codes`: see `wanted`. Raises LedgerAway."""

    def __init__(self, settings: Settings, target: Server, codes: Sequence[str] = ()) -> None:
        ledger, kept = settings.ledger, settings.retention
        self._target = target
        self._codes = list(codes)
        self._silence = timedelta(seconds=ledger.owner_dead_after_seconds) + GRACE
        self._grace = timedelta(seconds=settings.http.total_timeout_seconds) + GRACE
        self._handed = timedelta(seconds=settings.reports.handed_over_too_long_seconds)
        # What is older than the shortest of these may be gone from one table and still be in another.
        self._kept = timedelta(days=min(kept.requests_days, kept.reports_days, kept.attempts_days))

    async def look(self, back: timedelta | None = None) -> Balance:
        """The sums and every gap, in one snapshot; ended rows not older than `back`, or than retention keeps all.

        With `back` the sums are of what is open alone: what has ended is most of the ledger, and is not counted.
        """

        async def work(connection: Connection) -> Balance:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                counts = {
                    (row["what"], row["state"]): row["rows"]
                    for row in await connection.fetch(COUNTS if back is None else OPEN_COUNTS)
                }
                return balance(
                    counts, [gap for kind in GAPS for gap in await self._find(connection, *kind, back)]
                )

        async with walking(self._target) as walk:
            return await walk.run(work)

    async def _remember(self, seen: Balance) -> None:
        """For pages, which must not count whole tables: the last look of any process, and when it was."""
        named = [{"gap": gap.kind, "id": str(gap.id)} for gap in seen.gaps if gap.id][:TOLD_MOST]
        kinds = Counter(gap.kind for gap in seen.gaps)
        figures = json.dumps({"gaps": len(seen.gaps), "kinds": dict(kinds), "named": named})
        async with walking(self._target) as walk:
            await walk.run(lambda connection: connection.execute(REMEMBER, LOOK, figures))

    async def _find(
        self, connection: Connection, kind: str, _meaning: str, statement: str, back: timedelta | None
    ) -> list[Gap]:
        values = (self._silence, self._grace, min(back or self._kept, self._kept), self._handed, self._codes)
        # Unused values need a type all the same.
        rows = await connection.fetch(
            "WITH given AS (SELECT $1::interval, $2::interval, $3::interval, $4::interval, $5::text[])"
            f" {statement} LIMIT {NAMED_MOST}",
            *values,
        )
        return [Gap(kind, row[0]) for row in rows]

    async def check(self) -> Balance:
        """The chore: one look at the last hour, and a line for a person for each kind of gap. Every minute is enough."""
        seen = await self.look(ALWAYS_BACK)
        await self._remember(seen)
        for kind in dict.fromkeys(gap.kind for gap in seen.gaps):
            ids = [gap.id for gap in seen.gaps if gap.kind == kind]
            log.error(
                "conservation-gap",
                cause=kind,
                reason=MEANINGS[kind],
                count=len(ids),
                problems=ids[:TOLD_MOST],
            )
        return seen
