"""Flow: how much came in and went out in each minute, as each process wrote its own counts down.

A chore writes differences every few seconds, in one small statement; no message waits for it. What could not be
written stays in hand and is written later, so a figure may stand in a later minute, and a commit of unknown fate may
count twice: these are figures for people, and whether anything is lost is conservation's business.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from broker.errors import BrokerError
from broker.ledger.postgres.connections import Connection, Pool

CounterValues = Mapping[tuple[str, ...], int]
FlowKey = tuple[str, str]

EVERY_S = 10.0
"""How often a process writes its counts down."""
LAST_S = 2.0
"""How long a stop waits for the last ones."""
MOST_KEYS = 1000
"""Kinds of counts that one process writes in a minute; labels are from closed lists and the directory."""
MOST_MINUTES = 24 * 60

ADD = """
INSERT INTO flow (minute, worker, what, label, count)
SELECT date_trunc('minute', (SELECT ledger_now())), $1, given.* FROM unnest($2::text[], $3::text[], $4::bigint[]) AS given
ON CONFLICT (minute, worker, what, label) DO UPDATE SET count = flow.count + excluded.count
"""

# Whole minutes in steps, so that a day has as many points as an hour; the last step is still filling. The beginning is
# a value that PostgreSQL knows when it plans: so it takes the few minutes that are meant by their key.
BEGINNING = """
SELECT date_bin($2::interval, ledger_now() - $1::interval, to_timestamp(0)) + $2::interval AS first, ledger_now() AS now
"""
STEPS = "SELECT generate_series($1::timestamptz, $2::timestamptz, $3::interval) AS at"
READ = """
SELECT date_bin($2::interval, minute, to_timestamp(0)) AS at, what, label, sum(count)::bigint AS count
FROM flow WHERE minute >= $1::timestamptz GROUP BY 1, 2, 3
"""


class Rollup:
    """The counts of this process on their way into the ledger. `counted` gives what was counted since its start."""

    def __init__(self, lines: Pool, worker: UUID, counted: Callable[[], CounterValues]) -> None:
        self._lines = lines
        self._worker = worker
        self._counted = counted
        self._written: Counter[FlowKey] = Counter()

    async def write(self) -> None:
        """Write down what has come since the last time. Raises LedgerAway; then it is written the next time."""
        now = figures_of(self._counted())
        more = {key: now[key] - self._written[key] for key in list(now)[:MOST_KEYS]}
        rows = sorted((what, label, count) for (what, label), count in more.items() if count)
        if not rows:
            return
        arrays = [list(column) for column in zip(*rows, strict=True)]
        await self._lines.run(lambda connection: connection.execute(ADD, self._worker, *arrays))
        self._written.update(more)

    async def write_last(self) -> None:
        """At a stop: write if that is quick, and leave it if it is not."""
        with contextlib.suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self.write()


def figures_of(counted: CounterValues) -> Counter[FlowKey]:
    """A process's counts by (what, label), as the table of flow has them. Pure."""
    figures: Counter[FlowKey] = Counter()
    for key, count in counted.items():
        match key:
            case ("arrivals", type_):
                figures["request", type_] += count
            case ("answers", _, status, _):
                figures["answer", status] += count
            case ("created", supplier):
                figures["created", supplier] += count
            case ("attempts", supplier, "delivered" | "dead" as end):
                figures[end, supplier] += count
    return figures


@dataclass(frozen=True, slots=True)
class FlowStep:
    """What came in and went out in one step of time, over all processes: by type, by status, by supplier."""

    at: datetime
    requests: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    created: dict[str, int] = field(default_factory=dict)
    delivered: dict[str, int] = field(default_factory=dict)
    dead: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Flow:
    """The steps of a while, oldest first; the last one is still filling."""

    step_minutes: int
    steps: tuple[FlowStep, ...]

    def total(self, what: str) -> dict[str, int]:
        """Sums over all steps of `requests`, `answers`, `created`, `delivered` or `dead`."""
        sums: Counter[str] = Counter()
        for step in self.steps:
            sums.update(getattr(step, what))
        return dict(sorted(sums.items()))


PLACES = {
    "request": "requests",
    "answer": "answers",
    "created": "created",
    "delivered": "delivered",
    "dead": "dead",
}


async def flow_of(connection: Connection, hours: float, step_minutes: int) -> Flow:
    """The last hours (at most a day at one minute a step, more with longer steps)."""
    minutes = min(int(hours * 60), MOST_MINUTES * step_minutes)
    step = timedelta(minutes=step_minutes)
    [clock] = await connection.fetch(BEGINNING, timedelta(minutes=minutes), step)
    moments = await connection.fetch(STEPS, clock["first"], clock["now"], step)
    steps = {row["at"]: FlowStep(row["at"]) for row in moments}
    for row in await connection.fetch(READ, clock["first"], step):
        _put(steps, row)
    return Flow(step_minutes, tuple(steps.values()))


def _put(steps: dict[datetime, FlowStep], row: Any) -> None:
    if row["at"] in steps and row["what"] in PLACES:
        getattr(steps[row["at"]], PLACES[row["what"]])[row["label"]] = row["count"]
