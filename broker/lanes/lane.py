"""The state machine of a supplier's lane, a circuit breaker in the ledger: open, parked, probing, paused.

Pure: lane, event and time give the next lane (docs/states.md#lane). The ledger keeps the row that all processes share
and picks the probe. The retries of one report are counted in retry_policy.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from broker.lanes.events import (
    DestinationAnswered,
    DestinationFailed,
    Event,
    Paused,
    ProbeLost,
    Resumed,
    SetupWrong,
    TimeCame,
    WaitRequested,
)
from config.report_sections import ReportSettings

# The doubling has reached `park_most_seconds` long before; the stored counter needs a bound.
HIGHEST_STEP = 30


class LaneState(StrEnum):
    """May be handed over: everything (open), nothing (parked), one probe (probing), nothing until resumed (paused)."""

    OPEN = "open"
    PARKED = "parked"
    PROBING = "probing"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Lane:
    """One supplier's lane. Times are aware and from one clock, the ledger's.

    `parked_until`: None while the lane works; kept while paused. `asked_until`: the end of the supplier's own
    Retry-After; neither an answer nor an operator shortens it. `park_step`: doublings since the last answer.
    `failures`: consecutive failures of the destination. `last_probe`: the next probe is another report if there is
    one. `attention`: a sentence for an operator, until the lane opens, or while it is open until the destination
    answers as the contract says.
    """

    supplier: str
    changed_at: datetime
    state: LaneState = LaneState.OPEN
    parked_until: datetime | None = None
    asked_until: datetime | None = None
    park_step: int = 0
    failures: int = 0
    probe: UUID | None = None
    last_probe: UUID | None = None
    reason: str | None = None
    by: str | None = None
    attention: str | None = None


@dataclass(frozen=True, slots=True)
class LaneTransition:
    """A row of LANE_TRANSITIONS. `before`: None for an insert. `written_by`: SQL statement, module below broker.ledger."""

    before: LaneState | None
    after: LaneState
    events: tuple[type, ...]
    written_by: str = "reports.lanes.WRITE"


LANE_TRANSITIONS = (
    LaneTransition(None, LaneState.OPEN, (), "reports.lanes.ADD"),
    LaneTransition(None, LaneState.OPEN, (), "reports.new_reports.LANES"),
    LaneTransition(LaneState.OPEN, LaneState.PARKED, (DestinationFailed, SetupWrong, WaitRequested)),
    LaneTransition(LaneState.PARKED, LaneState.PROBING, (TimeCame,)),
    LaneTransition(LaneState.PARKED, LaneState.OPEN, (DestinationAnswered,)),
    LaneTransition(LaneState.PROBING, LaneState.OPEN, (DestinationAnswered,)),
    LaneTransition(
        LaneState.PROBING, LaneState.PARKED, (DestinationFailed, SetupWrong, WaitRequested, ProbeLost)
    ),
    LaneTransition(LaneState.OPEN, LaneState.PAUSED, (Paused,)),
    LaneTransition(LaneState.PARKED, LaneState.PAUSED, (Paused,)),
    LaneTransition(LaneState.PROBING, LaneState.PAUSED, (Paused,)),
    LaneTransition(LaneState.PAUSED, LaneState.OPEN, (Resumed,)),
    LaneTransition(LaneState.PAUSED, LaneState.PARKED, (Resumed,)),
)
"""Every change of a lane's state. tests/ledger/test_transitions.py checks each row."""


def after(lane: Lane, event: Event, now: datetime, rules: ReportSettings) -> Lane:
    """The lane after `event`; unchanged if the event has no meaning in the lane's state."""
    match event:
        case Paused():
            return _paused(lane, event, now)
        case Resumed():
            return _resumed(lane, event, now)
        case WaitRequested():
            return _asked_to_wait(lane, event, now, rules)
    if lane.state is LaneState.PAUSED:
        return lane
    match event:
        case DestinationAnswered():
            return _answered(lane, now)
        case DestinationFailed():
            return _failed(lane, event, now, rules)
        case SetupWrong():
            return _setup_wrong(lane, event, now, rules)
        case TimeCame():
            return _time_came(lane, event, now)
        case ProbeLost():
            return _probe_lost(lane, now, rules)


def may_hand_over(lane: Lane, now: datetime) -> bool:
    """Whether due reports may be handed over, up to the window."""
    return lane.state is LaneState.OPEN and _asked_for(lane, now) is None


def wants_probe(lane: Lane, now: datetime) -> bool:
    """Whether one report is to be handed over as a probe now."""
    return lane.state is LaneState.PARKED and (lane.parked_until is None or now >= lane.parked_until)


def tells_a_person(before: Lane, after: Lane) -> str | None:
    """The sentence an operator must be told because of this change, once for each cause; None: nothing new."""
    return after.attention if after.attention != before.attention else None


def _paused(lane: Lane, event: Paused, now: datetime) -> Lane:
    return replace(lane, state=LaneState.PAUSED, probe=None, by=event.by, reason=event.reason, changed_at=now)


def _resumed(lane: Lane, event: Resumed, now: datetime) -> Lane:
    if lane.state not in (LaneState.PAUSED, LaneState.PARKED):
        return lane
    resumed = replace(lane, by=event.by, reason=event.reason, changed_at=now)
    asked = _asked_for(lane, now)
    if lane.parked_until is None and asked is None:
        return replace(resumed, state=LaneState.OPEN, attention=None)
    # The destination failed before, so one report probes first; the operator only ends our own wait.
    return replace(resumed, state=LaneState.PARKED, parked_until=asked or now)


def _asked_to_wait(lane: Lane, event: WaitRequested, now: datetime, rules: ReportSettings) -> Lane:
    if event.seconds is None:
        stays = lane.state in (LaneState.PAUSED, LaneState.PARKED)
        return lane if stays else _park(lane, event.what, now, rules)
    waiting = _with_retry_after(lane, event.seconds, event.what, now, rules)
    if lane.state is LaneState.PAUSED:
        return waiting  # the pause stays; the Retry-After is kept for the time when the lane is resumed
    # A probe that gets "Retry-After: 0" each time must not become a busy loop.
    least = rules.park_first_seconds if lane.state is LaneState.PROBING else 0.0
    until = max(now + timedelta(seconds=least), waiting.asked_until or now)
    if lane.state is LaneState.PARKED:
        until = max(until, lane.parked_until or until)
    parked = replace(waiting, state=LaneState.PARKED, parked_until=until, probe=None)
    return replace(parked, reason=f"asked to wait: {event.what}", by=None, changed_at=now)


def _with_retry_after(lane: Lane, seconds: float, what: str, now: datetime, rules: ReportSettings) -> Lane:
    """The lane with the supplier's Retry-After; a shorter one does not replace a longer one."""
    most = rules.retry_after_most_seconds
    asked = now + timedelta(seconds=min(seconds, most))
    promised = replace(lane, asked_until=max(asked, lane.asked_until or asked))
    if seconds <= most:
        return promised
    asked_for = f"{seconds / 3600:.0f} h" if math.isfinite(seconds) else "in words that we cannot read"
    text = f"{lane.supplier} asked to wait {asked_for} ({what}); it gets {most / 3600:.0f} h"
    return replace(promised, attention=text)


def _answered(lane: Lane, now: datetime) -> Lane:
    well = replace(
        lane, failures=0, park_step=0, attention=None if lane.state is LaneState.OPEN else lane.attention
    )
    if lane.state is LaneState.OPEN:
        return well
    if (asked := _asked_for(lane, now)) is not None:
        # The destination works, and it asked for a pause: the answer of another report does not end that pause.
        return replace(well, state=LaneState.PARKED, parked_until=asked, probe=None)
    return Lane(lane.supplier, changed_at=now, last_probe=lane.last_probe)


def _failed(lane: Lane, event: DestinationFailed, now: datetime, rules: ReportSettings) -> Lane:
    if event.otherwise:
        lane = replace(
            lane, attention=f"{lane.supplier} answers otherwise than the contract says: {event.what}"
        )
    if lane.state is LaneState.PROBING:
        return _park(lane, event.what, now, rules) if event.probe else lane
    if lane.state is not LaneState.OPEN:
        return lane  # the attempt began before the lane was parked
    failed = replace(lane, failures=lane.failures + 1)
    if failed.failures < rules.park_after_failures:
        return failed
    return _park(failed, f"{failed.failures} failures in a row, the last: {event.what}", now, rules)


def _setup_wrong(lane: Lane, event: SetupWrong, now: datetime, rules: ReportSettings) -> Lane:
    if lane.state is LaneState.PARKED or (lane.state is LaneState.PROBING and not event.probe):
        return lane
    attention = f"the set-up of {lane.supplier} is wrong: {event.what}"
    return replace(_park(lane, f"set-up: {event.what}", now, rules), attention=attention)


def _time_came(lane: Lane, event: TimeCame, now: datetime) -> Lane:
    if not wants_probe(lane, now):
        return lane
    return replace(lane, state=LaneState.PROBING, probe=event.probe, last_probe=event.probe, changed_at=now)


def _probe_lost(lane: Lane, now: datetime, rules: ReportSettings) -> Lane:
    if lane.state is not LaneState.PROBING:
        return lane
    # The lost probe proved nothing, so the next parking is as long as the last one.
    again = replace(lane, park_step=max(lane.park_step - 1, 0))
    return _park(again, "the probe was lost", now, rules)


def _park(lane: Lane, reason: str, now: datetime, rules: ReportSettings) -> Lane:
    seconds = min(rules.park_first_seconds * 2**lane.park_step, rules.park_most_seconds)
    until = now + timedelta(seconds=seconds)
    return replace(
        lane,
        state=LaneState.PARKED,
        parked_until=max(until, lane.asked_until or until),
        park_step=min(lane.park_step + 1, HIGHEST_STEP),
        probe=None,
        reason=reason,
        by=None,
        changed_at=now,
    )


def _asked_for(lane: Lane, now: datetime) -> datetime | None:
    return lane.asked_until if lane.asked_until is not None and lane.asked_until > now else None
