"""The lane's state machine: every state against every event as a table, then the rules one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

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
from broker.lanes.lane import HIGHEST_STEP, Lane, LaneState, after, may_hand_over, tells_a_person, wants_probe
from config.report_sections import ReportSettings

NOW = datetime(2031, 3, 3, 9, 0, tzinfo=UTC)
FIRST, SECOND = UUID(int=1), UUID(int=2)
HOUR = 3600.0


RULES = ReportSettings(park_after_failures=3)
OPEN = Lane("nordlys", changed_at=NOW)
FAILING = replace(OPEN, failures=2)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def step(lane: Lane, *events: Event, now: datetime = NOW) -> Lane:
    for event in events:
        lane = after(lane, event, now, RULES)
    return lane


PARKED = step(FAILING, DestinationFailed("timeout"))  # until NOW + 60 s
WAITING = step(OPEN, WaitRequested(HOUR, "status 503"))  # asked for an hour
DUE = replace(PARKED, parked_until=NOW)
PROBING = step(DUE, TimeCame(FIRST))
PAUSED = step(OPEN, Paused("anna", "they move house"))
PAUSED_WHILE_PARKED = step(PARKED, Paused("anna", "they move house"))
PAUSED_WHILE_WAITING = step(WAITING, Paused("anna", "they move house"))

EVENTS: dict[str, Event] = {
    "answered": DestinationAnswered(),
    "failed": DestinationFailed("timeout"),
    "probe-failed": DestinationFailed("timeout", probe=True),
    "otherwise": DestinationFailed("status 200", otherwise=True),
    "setup": SetupWrong("status 401"),
    "probe-setup": SetupWrong("status 401", probe=True),
    "asked": WaitRequested(120, "status 429"),
    "asked-vaguely": WaitRequested(None, "status 429"),
    "pause": Paused("anna", "x"),
    "resume": Resumed("anna", "x"),
    "time": TimeCame(SECOND),
    "probe-lost": ProbeLost(),
}
COLUMNS = list(EVENTS)
# One row for each state, one column for each event: the first letters of the next state, "." for no change
# at all, "+" for the same state with something counted or remembered.
TABLE = {
    #                       answ fail pfail other setup psetup asked vague pause resume time lost
    "OPEN": (OPEN, "        .    +    +     +     park  park   park  park  paus  .      .    ."),
    "FAILING": (FAILING, "  +    park park  park  park  park   park  park  paus  .      .    ."),
    "PARKED": (PARKED, "    open .    .     +     .     .      +     .     paus  +      .    ."),
    "DUE": (DUE, "          open .    .     +     .     .      +     .     paus  +      prob ."),
    "WAITING": (WAITING, "  .    .    .     +     .     .      +     .     paus  +      .    ."),
    "PROBING": (PROBING, "  open .    park  +     .     park   park  park  paus  .      .    park"),
    "PAUSED": (PAUSED, "    .    .    .     .     .     .      +     .     +     open   .    ."),
    "HELD": (PAUSED_WHILE_PARKED, " . . . . . . + . + park . ."),
    "HELD-WAITING": (PAUSED_WHILE_WAITING, " . . . . . . . . + park . ."),
}


@pytest.mark.parametrize(("row", "column"), [(row, column) for row in TABLE for column in COLUMNS])
def test_every_state_meets_every_event(row: str, column: str) -> None:
    lane, cells = TABLE[row]
    wanted = cells.split()[COLUMNS.index(column)]
    got = step(lane, EVENTS[column])
    if wanted == ".":
        assert got == lane
    elif wanted == "+":
        assert got != lane
        assert got.state is lane.state
    else:
        assert got.state.value.startswith(wanted)
        assert got.state is not lane.state


def test_parking_doubles_from_one_minute_to_thirty_and_no_further() -> None:
    lane, now, lengths = PARKED, NOW, []
    for _ in range(2 * HIGHEST_STEP):
        assert lane.parked_until is not None
        lengths.append((lane.parked_until - now).total_seconds())
        now = lane.parked_until
        lane = step(lane, TimeCame(FIRST), DestinationFailed("timeout", probe=True), now=now)
    assert lengths[:6] == [60, 120, 240, 480, 960, 1800]
    assert set(lengths[5:]) == {1800}


def test_an_answer_makes_the_next_parking_short_again() -> None:
    again = step(PROBING, DestinationAnswered(), *[DestinationFailed("timeout")] * 3)
    assert again.parked_until == at(60)


def test_a_person_is_told_at_the_first_answer_that_is_not_the_contracts_and_until_one_is() -> None:
    otherwise = DestinationFailed("status 200", otherwise=True)
    told = step(OPEN, otherwise)
    assert told.state is LaneState.OPEN
    assert tells_a_person(OPEN, told) == "nordlys answers otherwise than the contract says: status 200"
    assert tells_a_person(told, step(told, otherwise)) is None
    parked = step(told, otherwise, otherwise)
    assert (parked.state, parked.attention) == (LaneState.PARKED, told.attention)
    assert step(told, DestinationAnswered()) == OPEN
    assert step(parked, TimeCame(FIRST), DestinationAnswered(), now=at(60)).attention is None


def test_failures_count_only_in_a_row() -> None:
    failed = DestinationFailed("timeout")
    assert step(OPEN, failed, failed, DestinationAnswered(), failed, failed).state is LaneState.OPEN
    assert step(OPEN, failed, failed, failed).state is LaneState.PARKED


def test_the_reason_says_in_words_why_the_lane_is_parked() -> None:
    assert PARKED.reason == "3 failures in a row, the last: timeout"
    assert step(OPEN, SetupWrong("status 401")).reason == "set-up: status 401"
    assert WAITING.reason == "asked to wait: status 503"


def test_retry_after_is_kept_in_full_up_to_a_day_and_longer_ones_are_told_to_a_person() -> None:
    day = step(OPEN, WaitRequested(24 * HOUR, "status 503"))
    longer = step(OPEN, WaitRequested(48 * HOUR, "status 503"))
    assert day.parked_until == longer.parked_until == at(24 * HOUR)
    assert tells_a_person(OPEN, day) is None
    assert tells_a_person(OPEN, longer) == "nordlys asked to wait 48 h (status 503); it gets 24 h"


@pytest.mark.parametrize("lane", [WAITING, PAUSED_WHILE_WAITING])
def test_neither_an_answer_nor_a_person_shortens_what_the_supplier_asked_for(lane: Lane) -> None:
    lane = step(lane, DestinationAnswered(), Resumed("anna", "x"), DestinationAnswered(), now=at(5))
    assert (lane.state, lane.parked_until) == (LaneState.PARKED, at(HOUR))
    assert wants_probe(lane, at(HOUR))


def test_a_shorter_wish_after_a_longer_one_takes_nothing_back() -> None:
    assert step(WAITING, WaitRequested(1, "status 429"), now=at(5)).parked_until == at(HOUR)


def test_a_probe_that_is_told_to_come_back_at_once_does_not() -> None:
    assert step(OPEN, WaitRequested(0, "status 503")).parked_until == NOW
    assert step(PROBING, WaitRequested(0, "status 503")).parked_until == at(60)
    assert step(PROBING, WaitRequested(90, "status 503")).parked_until == at(90)


def test_a_parking_by_failures_ends_no_earlier_than_a_wish_that_still_runs() -> None:
    lane = replace(OPEN, asked_until=at(HOUR))
    assert step(lane, SetupWrong("status 401")).parked_until == at(HOUR)


def test_what_a_supplier_asks_for_while_paused_is_kept_for_the_resumption() -> None:
    lane = step(PAUSED, WaitRequested(HOUR, "status 503"))
    assert (lane.state, lane.reason, lane.by) == (LaneState.PAUSED, "they move house", "anna")
    assert step(lane, Resumed("anna", "done"), now=at(60)).parked_until == at(HOUR)
    assert step(lane, Resumed("anna", "done"), now=at(HOUR)).state is LaneState.OPEN


def test_resuming_a_lane_that_did_not_work_sends_one_report_first_and_at_once() -> None:
    for lane in (PARKED, PAUSED_WHILE_PARKED):
        resumed = step(lane, Resumed("anna", "they say it works"), now=at(5))
        assert wants_probe(resumed, at(5))
        assert not may_hand_over(resumed, at(5))
        assert (resumed.by, resumed.reason) == ("anna", "they say it works")


def test_only_an_open_lane_hands_over_and_only_a_parked_one_probes() -> None:
    lanes = (OPEN, PARKED, DUE, PROBING, PAUSED, PAUSED_WHILE_PARKED)
    assert [lane for lane in lanes if may_hand_over(lane, NOW)] == [OPEN]
    assert [lane for lane in lanes if wants_probe(lane, NOW)] == [DUE]
    assert [lane for lane in lanes if wants_probe(lane, at(60))] == [PARKED, DUE]


def test_the_last_probe_is_remembered_so_that_the_next_one_can_be_another() -> None:
    again = step(PROBING, DestinationFailed("timeout", probe=True))
    assert (again.probe, again.last_probe) == (None, FIRST)
    assert step(again, TimeCame(SECOND), now=at(HOUR)).last_probe == SECOND
    assert step(PROBING, DestinationAnswered()).last_probe == FIRST


def test_a_lost_probe_waits_as_long_as_before_and_does_not_double() -> None:
    lane = PROBING
    for _ in range(5):
        lane = step(lane, ProbeLost())
        assert lane.parked_until == at(60)
        lane = step(replace(lane, parked_until=NOW), TimeCame(FIRST))


def test_a_wrong_set_up_is_told_once_until_the_lane_has_opened() -> None:
    parked = step(OPEN, SetupWrong("status 401"))
    again = step(replace(parked, parked_until=NOW), TimeCame(FIRST), SetupWrong("status 401", probe=True))
    other = step(replace(parked, parked_until=NOW), TimeCame(FIRST), SetupWrong("certificate", probe=True))
    assert tells_a_person(OPEN, parked) == "the set-up of nordlys is wrong: status 401"
    assert tells_a_person(parked, again) is None
    assert tells_a_person(parked, other) == "the set-up of nordlys is wrong: certificate"
    assert tells_a_person(again, step(again, DestinationAnswered())) is None
    assert step(again, DestinationAnswered()).attention is None


def test_what_a_person_had_to_see_to_is_over_when_they_resume_a_lane_that_opens() -> None:
    paused = step(PAUSED, WaitRequested(48 * HOUR, "status 503"))
    assert paused.attention is not None
    resumed = step(paused, Resumed("anna", "done"), now=at(24 * HOUR))
    assert (resumed.state, resumed.attention) == (LaneState.OPEN, None)


def test_an_opened_lane_forgets_its_past() -> None:
    assert step(PROBING, DestinationAnswered(), now=at(9)) == Lane(
        "nordlys", changed_at=at(9), last_probe=FIRST
    )
