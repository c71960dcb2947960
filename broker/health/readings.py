"""How the metrics read their values: from the counters, the components and the last results of periodic checks.

Each function gives a value for each combination of labels, or none while the component does not exist yet. Pure.
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


def from_figures(read: Callable[[Figures], MetricValues]) -> Read:
    """A reading of the last figures of the ledger, if there are any."""
    return lambda vitals: read(vitals.figures) if vitals.figures else {}


def counts(backlogs: Callable[[Figures], Mapping[Any, Backlog]]) -> Read:
    """The number of items in each backlog."""
    return from_figures(lambda figures: {_key(key): each.number for key, each in backlogs(figures).items()})


def oldest_ages(backlogs: Callable[[Figures], Mapping[Any, Backlog]]) -> Read:
    """The age of the oldest item in each backlog, 0 if it is empty. It keeps growing between two readings."""

    def read(vitals: Vitals) -> MetricValues:
        if vitals.figures is None:
            return {}
        since = monotonic() - vitals.figures_at
        found = backlogs(vitals.figures).items()
        return {_key(key): each.oldest_s + since if each.number else 0.0 for key, each in found}

    return read


def _key(key: str | tuple[str, ...]) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def waiting(figures: Figures) -> dict[str, Backlog]:
    """Reports that are not delivered yet, by supplier, with a zero for each lane without any."""
    found = dict.fromkeys(figures.lanes, Backlog(0))
    for (supplier, _), backlog in figures.waiting.items():
        found[supplier] = found.get(supplier, Backlog(0)) + backlog
    return found


def uncertain(figures: Figures) -> dict[str, Backlog]:
    """Uncertain bookings by system. If there are none, one zero: a missing metric would hide a failure to read it."""
    return dict(figures.uncertain) or {"": Backlog(0)}


def letters(figures: Figures) -> dict[tuple[str, str], Backlog]:
    """Dead letters by queue and cause. If there are none, one zero."""
    return dict(figures.letters) or {("", ""): Backlog(0)}


def lane_states(figures: Figures) -> MetricValues:
    """1 for the current state of each lane, 0 for the others."""
    lanes = figures.lanes.items()
    return {
        (supplier, state.value): float(lane.state is state) for supplier, lane in lanes for state in LaneState
    }


def lane_ages(vitals: Vitals) -> MetricValues:
    """How long each lane has been in its state."""
    lanes = vitals.figures.lanes if vitals.figures else {}
    since = monotonic() - vitals.figures_at
    return {(supplier,): lane.since_s + since for supplier, lane in lanes.items()}


def attention(figures: Figures) -> MetricValues:
    """1 for each lane that needs an operator."""
    return {(supplier,): float(lane.attention) for supplier, lane in figures.lanes.items()}


def consumers_expected(vitals: Vitals) -> MetricValues:
    return {(queue,): 1 for queue in vitals.rabbit.expected} if vitals.rabbit else {}


def consumers_alive(vitals: Vitals) -> MetricValues:
    rabbit = vitals.rabbit
    return {(queue,): float(queue in rabbit.alive) for queue in rabbit.expected} if rabbit else {}


def key_expiry(vitals: Vitals) -> MetricValues:
    """The start of the day (UTC) by which each key should be replaced."""
    days = vitals.key_expiry.items()
    return {(key,): datetime.combine(day, time(), UTC).timestamp() for key, day in days}
