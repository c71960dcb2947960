"""What stands in the ledger right now, as a few numbers for metrics: read at intervals, never while somebody asks.

Counts what is open only, so that what has ended costs nothing. Raises LedgerAway; changes nothing.
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
"""Groups of dead letters that are told apart; the smallest of the others are together `other`."""
WORD = re.compile(r"[a-z]{1,30}(-[a-z]{1,30}){0,5}")
"""What a cause of ours looks like. A header that a stranger wrote is no label."""
OTHER = "other"

_AGE = "extract(epoch FROM ledger_now() - min({}))::float8 AS age"

UNCERTAIN = f"""
SELECT booking_system AS one, count(*) AS number, {_AGE.format("coalesce(uncertain_since, created_at)")}
FROM requests WHERE state = 'uncertain' GROUP BY 1
"""
# A statement for each index: PostgreSQL finds none for all the states together.
WAITING_IN = f"""
SELECT coalesce(supplier, '') AS one, state AS two, count(*) AS number, {_AGE.format("created_at")}
FROM reports WHERE {{}} GROUP BY 1, 2
"""
STATES = ("state = 'waiting'", "state IN ('handed', 'delivering')", "state = 'joining'")
WAITING = " UNION ALL ".join(WAITING_IN.format(states) for states in STATES)
LETTERS = f"""
SELECT queue AS one, cause AS two, count(*) AS number, {_AGE.format("first_seen_at")}
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
    """So many of a kind, and how long the oldest of them has been there, in seconds."""

    number: int
    oldest_s: float = 0.0

    def __add__(self, other: Backlog) -> Backlog:
        return Backlog(self.number + other.number, max(self.oldest_s, other.oldest_s))


@dataclass(frozen=True, slots=True)
class LaneFigure:
    """A lane's state, for how long, and whether a person has to see to it."""

    state: LaneState
    since_s: float
    attention: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """One look. Keys: uncertain by system, waiting by (supplier, state), letters by (queue, cause), lanes by supplier."""

    uncertain: Mapping[str, Backlog] = field(default_factory=dict)
    waiting: Mapping[tuple[str, str], Backlog] = field(default_factory=dict)
    letters: Mapping[tuple[str, str], Backlog] = field(default_factory=dict)
    lanes: Mapping[str, LaneFigure] = field(default_factory=dict)
    workers_alive: int = 0
    workers_ready: int = 0


class FiguresReader:
    """Reads the figures on the desk's lines. A worker is alive while its heartbeat is younger than `threshold`."""

    def __init__(self, lines: Pool, threshold: timedelta) -> None:
        self._lines = lines
        self._threshold = threshold

    async def figures(self) -> Figures:
        """One look, in one snapshot; PostgreSQL's statement timeout is its bound."""
        return await self._lines.run(self._look)

    async def _look(self, connection: Connection) -> Figures:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            uncertain = await connection.fetch(UNCERTAIN)
            waiting = await connection.fetch(WAITING)
            letters = await connection.fetch(LETTERS)
            lanes = await connection.fetch(LANES)
            workers = await connection.fetchrow(WORKERS, self._threshold)
        return Figures(
            uncertain={row["one"]: _pile(row) for row in uncertain},
            waiting={(row["one"], row["two"]): _pile(row) for row in waiting},
            letters=grouped((row["one"], row["two"], _pile(row)) for row in letters),
            lanes={
                row["supplier"]: LaneFigure(LaneState(row["state"]), row["since"], row["attention"])
                for row in lanes
            },
            workers_alive=workers["alive"] if workers else 0,
            workers_ready=workers["ready"] if workers else 0,
        )


def _pile(row: Any) -> Backlog:
    return Backlog(row["number"], max(0.0, row["age"] or 0.0))


def grouped(rows: Iterable[tuple[str, str, Backlog]]) -> dict[tuple[str, str], Backlog]:
    """Letters by (queue, cause), the largest groups first: what looks like no word of ours is `other`. Pure."""
    found: dict[tuple[str, str], Backlog] = {}
    for queue, cause, pile in rows:
        known = WORD.fullmatch(cause) is not None and len(found) < MOST_CAUSES
        key = (queue, cause if known else OTHER)
        found[key] = found.get(key, Backlog(0)) + pile
    return found
