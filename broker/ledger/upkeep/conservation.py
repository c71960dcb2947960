"""Conservation: checks that every accepted request and every created report is accounted for.

Requests: accepted = answered + in flight + unverified. Reports: created = delivered + waiting + dead + discarded. The
states are compared with independent records (attempts, the report named by a request, heartbeats of owners); a
contradiction is a gap with an id. Repairs nothing; rows that retention deleted are not gaps.
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
from broker.ledger.upkeep.table_walk import open_walk
from broker.telemetry.log import get_logger
from config.settings import Settings

log = get_logger("ledger.conservation")

NAMED_MOST = 1000
"""Limit on ids of one kind of gap per check."""
LOGGED_MOST = 20
"""Limit on ids in one line of the log; the command prints them all."""
GRACE = timedelta(seconds=60)
"""Time after its own limit before something counts as stuck; sweeps run every tick."""
CHECK_BACK = timedelta(hours=1)
"""How far back the periodic check compares ended rows; `ledger conserve` compares all."""

ANSWERED, IN_FLIGHT, PUT_ASIDE = ("settled",), ("running", "uncertain"), ("unverified",)
WAITING = ("joining", "waiting", "handed", "delivering")
CHECK_NAME = "conservation"
"""The name of its row in last_looks."""
KNOWN = {
    "requests": (*ANSWERED, *IN_FLIGHT, *PUT_ASIDE),
    "reports": (*WAITING, "delivered", "dead", "discarded"),
}

COUNTS = """
SELECT 'requests' AS what, state, count(*) AS rows FROM requests GROUP BY 2
UNION ALL SELECT 'reports', state, count(*) FROM reports GROUP BY 2
"""

# One query for each state, so that each uses its own index. The tables refuse unknown states.
OPEN_COUNTS = " UNION ALL ".join(
    f"SELECT '{table}' AS what, '{state}' AS state, count(*) AS rows FROM {table} WHERE state = '{state}'"
    for table, states in (("requests", (*IN_FLIGHT, *PUT_ASIDE)), ("reports", (*WAITING, "dead")))
    for state in states
)

RECORD = """
INSERT INTO last_looks (name, at, figures) VALUES ($1, ledger_now(), $2::jsonb)
ON CONFLICT (name) DO UPDATE SET at = excluded.at, figures = excluded.figures
"""

# $1: the owner threshold plus grace. After an outage of PostgreSQL all heartbeats are older than the threshold.
NO_LIVE_OWNER = """NOT EXISTS (SELECT FROM workers AS o WHERE o.id = {owner} AND o.stopped_at IS NULL
    AND o.heartbeat_at >= clock_timestamp() - $1::interval)"""

# Every kind of gap: its name, its meaning for an operator, and the query for its ids. All queries take the same
# values: $1 age of a dead owner's heartbeat, $2 grace, $3 how far back ended rows are compared, $4 the limit for
# handed-over reports, $5 the fault codes that each supplier wants reports of, as text "supplier code".
# `(SELECT ledger_now())` is evaluated once per query, so that recently ended rows are found by an index (indexes.py).
GAPS: tuple[tuple[str, str, str], ...] = (
    (
        "running-without-owner",
        "the request is past its deadline, has no answer, and no live process handles it",
        f"""SELECT request_id FROM requests WHERE state = 'running'
            AND deadline_at < clock_timestamp() - $2::interval AND {NO_LIVE_OWNER.format(owner="requests.owner")}""",
    ),
    (
        "verification-overdue",
        "the booking is uncertain, its verification is overdue, and no live process verifies it",
        f"""SELECT request_id FROM requests WHERE state = 'uncertain'
            AND coalesce(verify_due_at, uncertain_since, created_at) < clock_timestamp() - $2::interval
            AND {NO_LIVE_OWNER.format(owner="requests.owner")}""",
    ),
    (
        "settled-without-answer",
        "the request is settled but has no answer",
        """SELECT request_id FROM requests WHERE state = 'settled' AND (answer IS NULL OR status IS NULL)
            AND settled_at > (SELECT ledger_now()) - $3::interval""",
    ),
    (
        "report-missing",
        "a request names this report, but the report does not exist",
        """SELECT r.report_id FROM requests AS r WHERE r.report_id IS NOT NULL
            AND r.settled_at > (SELECT ledger_now()) - $3::interval
            AND NOT EXISTS (SELECT FROM reports AS p WHERE p.report_id = r.report_id)""",
    ),
    (
        "receipt-without-report",
        "a citizen's report was acknowledged, but no report was created",
        """SELECT request_id FROM requests WHERE type = 'report.citizen.v1' AND status = 'done'
            AND report_id IS NULL AND settled_at > (SELECT ledger_now()) - $3::interval""",
    ),
    (
        "not-booked-without-report",
        "verification found that the booking was not made; its supplier wants a report, but none was created",
        """SELECT request_id FROM requests WHERE corrected AND status = 'failed' AND report_id IS NULL
            AND supplier || ' ' || error_code = ANY($5::text[]) AND settled_at > (SELECT ledger_now()) - $3::interval""",
    ),
    (
        "attempt-without-report",
        "an attempt to deliver this report exists, but the report does not",
        """SELECT DISTINCT a.report_id FROM attempts AS a WHERE a.started_at > (SELECT ledger_now()) - $3::interval
            AND NOT EXISTS (SELECT FROM reports AS p WHERE p.report_id = a.report_id)""",
    ),
    (
        "delivered-without-attempt",
        "the report is delivered, but no attempt delivered it",
        """SELECT p.report_id FROM reports AS p WHERE p.state = 'delivered'
            AND p.settled_at > (SELECT ledger_now()) - $3::interval
            AND NOT EXISTS (SELECT FROM attempt_results AS a
                            WHERE a.report_id = p.report_id AND a.verdict = 'delivered')""",
    ),
    (
        "taken-over-and-still-open",
        "an attempt delivered the report, but the report is not in state delivered",
        # LATERAL: looks up each report of the few recent attempts, instead of joining all reports.
        """SELECT a.report_id FROM attempt_results AS a, LATERAL (
                SELECT p.state FROM reports AS p WHERE p.report_id = a.report_id LIMIT 1) AS report
            WHERE a.verdict = 'delivered' AND a.applied AND report.state <> 'delivered'
            AND a.finished_at > (SELECT ledger_now()) - $3::interval""",
    ),
    (
        "delivering-without-owner",
        "the report is in state delivering, but no live process delivers it",
        f"""SELECT report_id FROM reports WHERE state = 'delivering' AND handed_at < ledger_now() - $2::interval
            AND {NO_LIVE_OWNER.format(owner="reports.owner")}""",
    ),
    (
        "handed-over-too-long",
        "the report was handed over, but no process claimed it or reverted the hand-over",
        """SELECT report_id FROM reports WHERE state = 'handed'
            AND handed_at < ledger_now() - $2::interval - $4::interval""",
    ),
    (
        "joining-too-long",
        "a citizen's report has waited too long for its failed request",
        "SELECT report_id FROM reports WHERE state = 'joining' AND due_at < ledger_now() - $2::interval",
    ),
)
MEANINGS = {kind: meaning for kind, meaning, _ in GAPS} | {"unknown-state": "rows in an unknown state"}


@dataclass(frozen=True, slots=True)
class Gap:
    """A request or report that is not accounted for. `id` is None for rows in an unknown state."""

    kind: str
    id: UUID | None

    @property
    def meaning(self) -> str:
        """What is wrong, as a sentence for an operator."""
        return MEANINGS[self.kind]


@dataclass(frozen=True, slots=True)
class Balance:
    """The two sums in rows, and the gaps. `put_aside`: unverified bookings."""

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
    def complete(self) -> bool:
        """Whether every request and every report is accounted for."""
        return not self.gaps

    def figures(self) -> dict[str, int]:
        """For a table, JSON or a metric."""
        names = [name for name in self.__slots__ if name != "gaps"]
        return {name: getattr(self, name) for name in names} | {"gaps": len(self.gaps)}


def balance_of(counts: Mapping[tuple[str, str], int], gaps: Iterable[Gap] = ()) -> Balance:
    """The sums from numbers of rows by (table, state). Rows in an unknown state are a gap. Pure."""

    def of(table: str, *states: str) -> int:
        return sum(counts.get((table, state), 0) for state in states)

    def total(table: str) -> int:
        return sum(rows for (counted, _), rows in counts.items() if counted == table)

    unknown = [
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
        gaps=(*unknown, *gaps),
    )


def report_codes(suppliers: Mapping[str, Any]) -> list[str]:
    """`supplier code` for each fault code of which a supplier in the directory wants automatic reports."""
    return [f"{name} {int(code)}" for name, config in suppliers.items() for code in config.report_codes]


class Conservation:
    """Checks one ledger. `codes`: see `report_codes`. Raises LedgerAway."""

    def __init__(self, settings: Settings, server: Server, codes: Sequence[str] = ()) -> None:
        ledger, kept = settings.ledger, settings.retention
        self._server = server
        self._codes = list(codes)
        self._owner_dead = timedelta(seconds=ledger.owner_dead_after_seconds) + GRACE
        self._grace = timedelta(seconds=settings.http.total_timeout_seconds) + GRACE
        self._handed = timedelta(seconds=settings.reports.handed_over_too_long_seconds)
        # Rows older than the shortest age may be deleted from one table and still be in another.
        self._kept = timedelta(days=min(kept.requests_days, kept.reports_days, kept.attempts_days))

    async def read_balance(self, back: timedelta | None = None) -> Balance:
        """The sums and all gaps, in one snapshot. Ended rows older than retention's shortest age are not compared.

        With `back`, only ended rows younger than that are compared, and the sums count open rows only: most rows of
        the ledger have ended, and counting them takes long.
        """

        async def work(connection: Connection) -> Balance:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                counts = {
                    (row["what"], row["state"]): row["rows"]
                    for row in await connection.fetch(COUNTS if back is None else OPEN_COUNTS)
                }
                return balance_of(
                    counts, [gap for kind in GAPS for gap in await self._find(connection, *kind, back)]
                )

        async with open_walk(self._server) as walk:
            return await walk.run(work)

    async def _record(self, balance: Balance) -> None:
        """Store the result for the console, which does not check by itself."""
        named = [{"gap": gap.kind, "id": str(gap.id)} for gap in balance.gaps if gap.id][:LOGGED_MOST]
        kinds = Counter(gap.kind for gap in balance.gaps)
        figures = json.dumps({"gaps": len(balance.gaps), "kinds": dict(kinds), "named": named})
        async with open_walk(self._server) as walk:
            await walk.run(lambda connection: connection.execute(RECORD, CHECK_NAME, figures))

    async def _find(
        self, connection: Connection, kind: str, _meaning: str, statement: str, back: timedelta | None
    ) -> list[Gap]:
        values = (
            self._owner_dead,
            self._grace,
            min(back or self._kept, self._kept),
            self._handed,
            self._codes,
        )
        # PostgreSQL needs the type of every parameter, also of those that this statement does not use.
        rows = await connection.fetch(
            "WITH given AS (SELECT $1::interval, $2::interval, $3::interval, $4::interval, $5::text[])"
            f" {statement} LIMIT {NAMED_MOST}",
            *values,
        )
        return [Gap(kind, row[0]) for row in rows]

    async def check(self) -> Balance:
        """The periodic check: compares the last hour, and logs an error for each kind of gap."""
        balance = await self.read_balance(CHECK_BACK)
        await self._record(balance)
        for kind in dict.fromkeys(gap.kind for gap in balance.gaps):
            ids = [gap.id for gap in balance.gaps if gap.kind == kind]
            log.error(
                "conservation-gap",
                cause=kind,
                reason=MEANINGS[kind],
                count=len(ids),
                problems=ids[:LOGGED_MOST],
            )
        return balance
