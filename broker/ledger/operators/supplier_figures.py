"""Figures of each supplier over the last 24 hours: its lane, attempts with latencies, reports delivered and dead.

Attempts are read from their results, at most the newest thousand; delivered and dead are sums of the flow.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from broker.ledger.audit_log import Refusal
from broker.ledger.operators.flow import Flow, flow_of
from broker.ledger.operators.overview import CAUSES_MOST, WAITING
from broker.ledger.operators.overview_model import Waiting
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.reports.lane_history import LaneChange, changes_of
from broker.ledger.reports.lanes import LIST, lane_row_of
from broker.ledger.reports.report_model import LaneRow

BACK = timedelta(hours=24)
ATTEMPTS_MOST = 1000
"""Per supplier; enough for a meaningful median and 95th percentile."""
LISTED_MOST = 200
HOURS, STEP_MINUTES = 24, 30

ATTEMPTS = """
SELECT lanes.supplier, a.* FROM lanes, LATERAL (
    SELECT count(*) AS attempts, count(*) FILTER (WHERE verdict = 'delivered') AS delivered,
        round(percentile_cont(0.5) WITHIN GROUP (ORDER BY milliseconds))::integer AS p50_ms,
        round(percentile_cont(0.95) WITHIN GROUP (ORDER BY milliseconds))::integer AS p95_ms,
        max(finished_at) AS last_at
    FROM (SELECT verdict, milliseconds, finished_at FROM attempt_results AS r
          WHERE r.supplier = lanes.supplier AND r.finished_at > (SELECT ledger_now()) - $1::interval
          ORDER BY finished_at DESC LIMIT $2) AS newest) AS a
"""

ENDED = """
SELECT label AS supplier, what, sum(count)::bigint AS count FROM flow
WHERE what IN ('created', 'delivered', 'dead') AND minute > $1::timestamptz GROUP BY 1, 2
"""

DEAD = """
SELECT coalesce(supplier, '') AS supplier, count(*) AS count, min(coalesce(first_failed_at, created_at)) AS oldest_at
FROM reports WHERE state = 'dead' GROUP BY 1
"""

NEWEST = """
SELECT r.report_id, r.number, r.finished_at, r.verdict, r.cause, r.status, r.fault, r.what, r.milliseconds, r.counted,
    r.applied, a.probe
FROM (SELECT * FROM attempt_results WHERE supplier = $1 ORDER BY finished_at DESC LIMIT $2) AS r
LEFT JOIN attempts AS a USING (report_id, number) ORDER BY r.finished_at DESC
"""


@dataclass(frozen=True, slots=True)
class SupplierFigures:
    """One supplier's lane and its last 24 hours.

    `attempts`, `answered` (attempts that delivered) and the latencies cover the newest thousand attempts.
    """

    lane: LaneRow
    attempts: int
    answered: int
    p50_ms: int | None
    p95_ms: int | None
    last_attempt_at: datetime | None
    created: int
    delivered: int
    died: int
    dead: int
    oldest_dead_at: datetime | None

    @property
    def supplier(self) -> str:
        """The supplier's name in the directory."""
        return self.lane.lane.supplier

    @property
    def share(self) -> float | None:
        """Delivered reports divided by all that ended, 0 to 1; None if none ended."""
        ended = self.delivered + self.died
        return self.delivered / ended if ended else None


@dataclass(frozen=True, slots=True)
class LaneAttempt:
    """One delivery attempt to a supplier."""

    report_id: Any
    number: int
    finished_at: datetime
    verdict: str
    cause: str | None
    status: int | None
    fault: str | None
    what: str | None
    milliseconds: int | None
    counted: bool
    applied: bool
    probe: bool | None


@dataclass(frozen=True, slots=True)
class SupplierStory:
    """One supplier's page: figures, waiting reports by cause, newest attempts, changes of its lane, a day of flow."""

    figures: SupplierFigures
    waiting: tuple[Waiting, ...]
    attempts: tuple[LaneAttempt, ...]
    changes: tuple[LaneChange, ...]
    flow: Flow


class Suppliers:
    """Reads figures of suppliers. Raises LedgerAway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def figures(self) -> list[SupplierFigures]:
        """Every supplier that has a lane, by name."""
        return await self._pool.run(_figures)

    async def story(self, supplier: str, *, limit: int = 50) -> SupplierStory:
        """One supplier with its newest attempts and lane changes. Raises Refusal if it has no lane."""
        return await self._pool.run(lambda connection: _story(connection, supplier, min(limit, LISTED_MOST)))


async def _figures(connection: Connection) -> list[SupplierFigures]:
    attempts = {row["supplier"]: row for row in await connection.fetch(ATTEMPTS, BACK, ATTEMPTS_MOST)}
    since = await connection.fetchval("SELECT ledger_now()") - BACK
    ended = {(row["supplier"], row["what"]): row["count"] for row in await connection.fetch(ENDED, since)}
    dead = {row["supplier"]: row for row in await connection.fetch(DEAD)}
    lanes = [lane_row_of(row) for row in await connection.fetch(LIST)]
    return [
        _figures_of(lane, attempts.get(lane.lane.supplier), ended, dead.get(lane.lane.supplier))
        for lane in lanes
    ]


def _figures_of(lane: LaneRow, tried: Any, ended: dict[tuple[str, str], int], dead: Any) -> SupplierFigures:
    name = lane.lane.supplier
    return SupplierFigures(
        lane=lane,
        attempts=tried["attempts"] if tried else 0,
        answered=tried["delivered"] if tried else 0,
        p50_ms=tried["p50_ms"] if tried else None,
        p95_ms=tried["p95_ms"] if tried else None,
        last_attempt_at=tried["last_at"] if tried else None,
        created=ended.get((name, "created"), 0),
        delivered=ended.get((name, "delivered"), 0),
        died=ended.get((name, "dead"), 0),
        dead=dead["count"] if dead else 0,
        oldest_dead_at=dead["oldest_at"] if dead else None,
    )


async def _story(connection: Connection, supplier: str, limit: int) -> SupplierStory:
    found = [figures for figures in await _figures(connection) if figures.supplier == supplier]
    if not found:
        raise Refusal(f"no lane {supplier} is known")
    waiting = [Waiting(**row) for row in await connection.fetch(WAITING, CAUSES_MOST)]
    names = [f.name for f in fields(LaneAttempt)]
    attempts = await connection.fetch(NEWEST, supplier, limit)
    return SupplierStory(
        figures=found[0],
        waiting=tuple(row for row in waiting if row.supplier == supplier),
        attempts=tuple(LaneAttempt(**{name: row[name] for name in names}) for row in attempts),
        changes=tuple(await changes_of(connection, supplier, limit)),
        flow=await flow_of(connection, HOURS, STEP_MINUTES),
    )
