"""Flow: messages in and out per minute. Each process writes its own counts.

A periodic task writes the increase since the last write, in one small statement; no message waits for it. Counts that
could not be written are written later, so they may appear in a later minute, and a commit with an unknown result may
count twice. These figures are for people; completeness is checked by upkeep/conservation.py.
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
"""How often a process writes its counts."""
LAST_S = 2.0
"""How long a stopping process waits for its last write."""
MOST_KEYS = 1000
"""Limit on different counts per write; labels come from closed lists and the directory."""
MOST_MINUTES = 24 * 60

ADD = """
INSERT INTO flow (minute, worker, what, label, count)
SELECT date_trunc('minute', (SELECT ledger_now())), $1, given.* FROM unnest($2::text[], $3::text[], $4::bigint[]) AS given
ON CONFLICT (minute, worker, what, label) DO UPDATE SET count = flow.count + excluded.count
"""

# Minutes are summed into steps, so that a day has as many points as an hour; the last step is not complete yet.
# The start is computed first, so that PostgreSQL plans READ with a known value and uses the primary key.
FIRST_STEP = """
SELECT date_bin($2::interval, ledger_now() - $1::interval, to_timestamp(0)) + $2::interval AS first, ledger_now() AS now
"""
STEPS = "SELECT generate_series($1::timestamptz, $2::timestamptz, $3::interval) AS at"
READ = """
SELECT date_bin($2::interval, minute, to_timestamp(0)) AS at, what, label, sum(count)::bigint AS count
FROM flow WHERE minute >= $1::timestamptz GROUP BY 1, 2, 3
"""


class Rollup:
    """Writes the counts of this process. `counted` returns the totals since the process started."""

    def __init__(self, pool: Pool, worker: UUID, counted: Callable[[], CounterValues]) -> None:
        self._pool = pool
        self._worker = worker
        self._counted = counted
        self._written: Counter[FlowKey] = Counter()

    async def write(self) -> None:
        """Write the increase since the last write. Raises LedgerAway; the next write then includes it."""
        totals = figures_of(self._counted())
        increase = {key: totals[key] - self._written[key] for key in list(totals)[:MOST_KEYS]}
        rows = sorted((what, label, count) for (what, label), count in increase.items() if count)
        if not rows:
            return
        arrays = [list(column) for column in zip(*rows, strict=True)]
        await self._pool.run(lambda connection: connection.execute(ADD, self._worker, *arrays))
        self._written.update(increase)

    async def write_last(self) -> None:
        """Write when the process stops; give up after `LAST_S` seconds."""
        with contextlib.suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self.write()


def figures_of(counted: CounterValues) -> Counter[FlowKey]:
    """A process's counts by (what, label), as in the table of flow. Pure."""
    figures: Counter[FlowKey] = Counter()
    for key, count in counted.items():
        match key:
            case ("arrivals", type_):
                figures["request", type_] += count
            case ("answers", _, status, _):
                figures["answer", status] += count
            case ("created", supplier):
                figures["created", supplier] += count
            case ("attempts", supplier, "delivered" | "dead" as result):
                figures[result, supplier] += count
    return figures


@dataclass(frozen=True, slots=True)
class FlowStep:
    """Counts of one time step over all processes: requests by type, answers by status, the others by supplier."""

    at: datetime
    requests: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    created: dict[str, int] = field(default_factory=dict)
    delivered: dict[str, int] = field(default_factory=dict)
    dead: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Flow:
    """Consecutive time steps, oldest first; the last one is not complete yet."""

    step_minutes: int
    steps: tuple[FlowStep, ...]

    def total(self, what: str) -> dict[str, int]:
        """Sums over all steps of `requests`, `answers`, `created`, `delivered` or `dead`."""
        sums: Counter[str] = Counter()
        for step in self.steps:
            sums.update(getattr(step, what))
        return dict(sorted(sums.items()))


FIELDS = {
    "request": "requests",
    "answer": "answers",
    "created": "created",
    "delivered": "delivered",
    "dead": "dead",
}


async def flow_of(connection: Connection, hours: float, step_minutes: int) -> Flow:
    """The flow of the last hours: at most a day in steps of one minute, more with longer steps."""
    minutes = min(int(hours * 60), MOST_MINUTES * step_minutes)
    step = timedelta(minutes=step_minutes)
    [span] = await connection.fetch(FIRST_STEP, timedelta(minutes=minutes), step)
    times = await connection.fetch(STEPS, span["first"], span["now"], step)
    steps = {row["at"]: FlowStep(row["at"]) for row in times}
    for row in await connection.fetch(READ, span["first"], step):
        _put(steps, row)
    return Flow(step_minutes, tuple(steps.values()))


def _put(steps: dict[datetime, FlowStep], row: Any) -> None:
    if row["at"] in steps and row["what"] in FIELDS:
        getattr(steps[row["at"]], FIELDS[row["what"]])[row["label"]] = row["count"]
