"""How the metrics read what they show: from the tally, the parts, and the last looks of the chores. Pure.

Each gives a value for each combination of labels, and nothing while the part it reads is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, time
from time import monotonic
from typing import Any

from broker.health.vitals import Vitals
from broker.lanes.lane import LaneState
from broker.ledger.operators.figures import Backlog, Figures
from broker.telemetry.prometheus import MetricValues

Read = Callable[[Vitals], MetricValues]


def single(value: float | None) -> MetricValues:
    """A metric without labels."""
    return {} if value is None else {(): float(value)}


def standing(read: Callable[[Figures], MetricValues]) -> Read:
    """From the last look at the ledger, if there was one."""
    return lambda vitals: read(vitals.figures) if vitals.figures else {}


def numbers(piles: Callable[[Figures], Mapping[Any, Backlog]]) -> Read:
    """How many there are of each kind."""
    return standing(lambda figures: {_key(key): pile.number for key, pile in piles(figures).items()})


def ages(piles: Callable[[Figures], Mapping[Any, Backlog]]) -> Read:
    """Of the oldest of each kind, counted on since the look: it grows also while nobody looks. 0 if there is none."""

    def read(vitals: Vitals) -> MetricValues:
        if vitals.figures is None:
            return {}
        since = monotonic() - vitals.figures_at
        found = piles(vitals.figures).items()
        return {_key(key): pile.oldest_s + since if pile.number else 0.0 for key, pile in found}

    return read


def _key(key: str | tuple[str, ...]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def waiting(figures: Figures) -> dict[str, Backlog]:
    """Reports that are not delivered yet, by supplier; every lane is there, with nothing if nothing waits."""
    found = dict.fromkeys(figures.lanes, Backlog(0))
    for (supplier, _), pile in figures.waiting.items():
        found[supplier] = found.get(supplier, Backlog(0)) + pile
    return found


def uncertain(figures: Figures) -> dict[str, Backlog]:
    """Uncertain bookings by system, and a zero when there are none: an absent number is no good news."""
    return dict(figures.uncertain) or {"": Backlog(0)}


def letters(figures: Figures) -> dict[tuple[str, str], Backlog]:
    """Dead letters by queue and cause, and a zero when there are none."""
    return dict(figures.letters) or {("", ""): Backlog(0)}


def lane_states(figures: Figures) -> MetricValues:
    """1 for the state that a lane is in, 0 for the others."""
    lanes = figures.lanes.items()
    return {
        (supplier, state.value): float(lane.state is state) for supplier, lane in lanes for state in LaneState
    }


def lane_ages(vitals: Vitals) -> MetricValues:
    """For how long each lane has been in its state."""
    lanes = vitals.figures.lanes if vitals.figures else {}
    since = monotonic() - vitals.figures_at
    return {(supplier,): lane.since_s + since for supplier, lane in lanes.items()}


def attention(figures: Figures) -> MetricValues:
    """Lanes that a person has to see to."""
    return {(supplier,): float(lane.attention) for supplier, lane in figures.lanes.items()}


def consumers_expected(vitals: Vitals) -> MetricValues:
    return {(queue,): 1 for queue in vitals.rabbit.expected} if vitals.rabbit else {}


def consumers_alive(vitals: Vitals) -> MetricValues:
    rabbit = vitals.rabbit
    return {(queue,): float(queue in rabbit.alive) for queue in rabbit.expected} if rabbit else {}


def key_expiry(vitals: Vitals) -> MetricValues:
    """Midnight at the beginning of that day."""
    days = vitals.key_expiry.items()
    return {(key,): datetime.combine(day, time(), UTC).timestamp() for key, day in days}
