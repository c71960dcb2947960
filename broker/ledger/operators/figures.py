"""Gauges of the ledger for metrics: read at intervals, not when metrics are scraped.

Counts open rows only, so that the cost does not grow with the history. Raises LedgerAway; changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from broker.lanes.lane import LaneState
from broker.ledger.postgres.connections import Connection, Pool

MOST_CAUSES = 50
"""Limit on groups of dead letters with labels of their own; the smaller ones are counted together as `other`."""
WORD = re.compile(r"[a-z]{1,30}(-[a-z]{1,30}){0,5}")
"""The form of our causes. Text from another program's header must not become a label."""
OTHER = "other"

_AGE = "extract(epoch FROM ledger_now() - min({}))::float8 AS age"

UNCERTAIN = f"""
SELECT booking_system, count(*) AS number, {_AGE.format("coalesce(uncertain_since, created_at)")}
FROM requests WHERE state = 'uncertain' GROUP BY 1
"""
# One query for each index: PostgreSQL uses none of them for all states in one query.
WAITING_IN = f"""
SELECT coalesce(supplier, '') AS supplier, state, count(*) AS number, {_AGE.format("created_at")}
FROM reports WHERE {{}} GROUP BY 1, 2
"""
STATES = ("state = 'waiting'", "state IN ('handed', 'delivering')", "state = 'joining'")
WAITING = " UNION ALL ".join(WAITING_IN.format(states) for states in STATES)
LETTERS = f"""
SELECT queue, cause, count(*) AS number, {_AGE.format("first_seen_at")}
FROM letters GROUP BY 1, 2 ORDER BY 3 DESC
"""
LANES = """
SELECT supplier, state, attention IS NOT NULL AS attention,
    extract(epoch FROM ledger_now() - changed_at)::float8 AS since
FROM lanes ORDER BY supplier
"""
WORKERS = """
SELECT count(*) AS alive, count(*) FILTER (WHERE ready) AS ready
FROM workers WHERE stopped_at IS NULL AND heartbeat_at >= clock_timestamp() - $1::interval
"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many of a kind there are, and the age of the oldest in seconds."""

    number: int
    oldest_s: float = 0.0

    def __add__(self, other: Backlog) -> Backlog:
        return Backlog(self.number + other.number, max(self.oldest_s, other.oldest_s))


@dataclass(frozen=True, slots=True)
class LaneFigure:
    """A lane's state, the seconds since it changed, and whether it needs a person."""

    state: LaneState
    since_s: float
    attention: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """Gauges at one moment.

    Keys: `uncertain` by booking system, `waiting` by (supplier, state), `letters` by (queue, cause), `lanes` by supplier.
    """

    uncertain: Mapping[str, Backlog] = field(default_factory=dict)
    waiting: Mapping[tuple[str, str], Backlog] = field(default_factory=dict)
    letters: Mapping[tuple[str, str], Backlog] = field(default_factory=dict)
    lanes: Mapping[str, LaneFigure] = field(default_factory=dict)
    workers_alive: int = 0
    workers_ready: int = 0


class FiguresReader:
    """Reads the figures. A worker is alive while its heartbeat is younger than `threshold`."""

    def __init__(self, pool: Pool, threshold: timedelta) -> None:
        self._pool = pool
        self._threshold = threshold

    async def figures(self) -> Figures:
        """All figures, in one snapshot; limited by PostgreSQL's statement timeout."""
        return await self._pool.run(self._read)

    async def _read(self, connection: Connection) -> Figures:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            uncertain = await connection.fetch(UNCERTAIN)
            waiting = await connection.fetch(WAITING)
            letters = await connection.fetch(LETTERS)
            lanes = await connection.fetch(LANES)
            workers = await connection.fetchrow(WORKERS, self._threshold)
        return Figures(
            uncertain={row["booking_system"]: _backlog(row) for row in uncertain},
            waiting={(row["supplier"], row["state"]): _backlog(row) for row in waiting},
            letters=grouped((row["queue"], row["cause"], _backlog(row)) for row in letters),
            lanes={
                row["supplier"]: LaneFigure(LaneState(row["state"]), row["since"], row["attention"])
                for row in lanes
            },
            workers_alive=workers["alive"] if workers else 0,
            workers_ready=workers["ready"] if workers else 0,
        )


def _backlog(row: Any) -> Backlog:
    return Backlog(row["number"], max(0.0, row["age"] or 0.0))


def grouped(rows: Iterable[tuple[str, str, Backlog]]) -> dict[tuple[str, str], Backlog]:
    """Letters by (queue, cause); `rows` with the largest groups first. A cause of another form is `other`. Pure."""
    groups: dict[tuple[str, str], Backlog] = {}
    for queue, cause, backlog in rows:
        known = WORD.fullmatch(cause) is not None and len(groups) < MOST_CAUSES
        key = (queue, cause if known else OTHER)
        groups[key] = groups.get(key, Backlog(0)) + backlog
    return groups
