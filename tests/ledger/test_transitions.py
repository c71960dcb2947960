"""The transition tables of request, report and lane say what the SQL and the pure lane rules do (docs/states.md)."""

from __future__ import annotations

import re
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
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
from broker.lanes.lane import LANE_TRANSITIONS, Lane, LaneState, after
from broker.ledger.model import State
from broker.ledger.reports.report_model import ReportState
from config.report_sections import ReportSettings
from tests.ledger.transitions import TRANSITIONS, disagreements, ledger_modules, state_writers

STATES = {"requests": State, "reports": ReportState, "lanes": LaneState}
NOW = datetime(2031, 3, 3, 9, 0, tzinfo=UTC)
EVENTS: tuple[Event, ...] = (
    DestinationAnswered(),
    DestinationFailed("timeout"),
    DestinationFailed("timeout", probe=True),
    SetupWrong("status 401"),
    SetupWrong("status 401", probe=True),
    WaitRequested(120, "status 429"),
    WaitRequested(None, "status 429"),
    Paused("anna", "x"),
    Resumed("anna", "x"),
    TimeCame(UUID(int=1)),
    ProbeLost(),
)


def test_the_tables_name_every_statement_that_writes_a_state() -> None:
    assert disagreements(state_writers(ledger_modules())) == []


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (
            "UPDATE reports SET state = 'waiting' WHERE state = 'dead'",
            "x.NEW writes reports.state and has no row",
        ),
        ("UPDATE requests SET epoch = 1, state = $2", "x.NEW writes requests.state and has no row"),
        ("INSERT INTO lanes (supplier) VALUES ($1)", "x.NEW writes lanes.state and has no row"),
        ("INSERT INTO requests (request_id, state) SELECT 1", "x.NEW writes requests.state and has no row"),
        ("UPDATE reports SET count = 1 WHERE state = 'dead'", None),
        (
            "UPDATE reports AS r SET due_at = now(), state = CASE $1 WHEN 'a' THEN 'dead' ELSE $2 END",
            "no row",
        ),
    ],
)
def test_a_new_writer_without_a_row_is_found(statement: str, what: str | None) -> None:
    new = ("x", {"NEW": statement}, f"NEW = {statement!r}")
    found = disagreements(state_writers([*ledger_modules(), new]))
    assert len(found) == (0 if what is None else 1)
    assert what is None or what in found[0]


def test_a_writer_inside_a_function_is_found() -> None:
    source = "async def work(c):\n    await c.execute(\"UPDATE lanes SET state = 'open'\")\n"
    assert disagreements(state_writers([*ledger_modules(), ("x", {}, source)])) == [
        "x.<inline> writes lanes.state and has no row"
    ]


def test_a_statement_that_writes_another_state_than_its_row_is_found() -> None:
    changed = ("requests.verifications", {"GIVE_UP": "UPDATE requests SET state = 'settled'"}, "GIVE_UP = ''")
    others = [module for module in ledger_modules() if module[0] != "requests.verifications"]
    assert disagreements(state_writers([*others, changed])) == [
        "requests.verifications.GIVE_UP: after is ['settled'] in the SQL, else in the table"
    ]


def test_the_tables_use_every_state_and_can_reach_it() -> None:
    for table, states in STATES.items():
        rows = TRANSITIONS[table]
        reached = {row.after for row in rows if row.before is None}
        for _ in states:
            reached |= {row.after for row in rows if row.before in reached}
        assert reached == set(states)


def page_of(table: str) -> str:
    """The section of docs/states.md about `table`."""
    page = (Path(__file__).parents[2] / "docs" / "states.md").read_text(encoding="utf-8")
    return page.split(f'<a id="{table.removesuffix("s")}"></a>')[1].split("<a id=")[0]


def statements(markdown: str) -> list[str]:
    """The SQL statements that `markdown` names by file and name, as the transition tables write them."""
    named = re.findall(r"`broker/ledger/([\w/]+)\.py` `([A-Z_]+)`", markdown)
    return [f"{path.replace('/', '.')}.{name}" for path, name in named]


@pytest.mark.parametrize("table", ["requests", "reports"])
def test_the_page_of_states_has_the_same_rows(table: str) -> None:
    rows = re.findall(r"^\| ([^|]+) \| (\w+) \| [^|]+ \| ([^|]+) \|$", page_of(table), re.M)
    changes = {
        (None if before == "\N{EN DASH}" else before, after, statements(writer)[0])
        for many, after, writer in rows
        for before in many.split(", ")
        if after not in (before, "to", "deleted")
    }
    assert changes == {(row.before, row.after, row.written_by) for row in TRANSITIONS[table]}


def test_the_page_of_states_has_the_events_and_writers_of_lanes() -> None:
    section = page_of("lanes")
    header, *rows = [line.split("|")[1:-1] for line in re.findall(r"^\| (?:event|`[A-Z]).*$", section, re.M)]
    columns = [cell.split("`")[1] for cell in header[1:]]
    changes = {
        (column, after, cells[0].split("`")[1])
        for cells in rows
        for column, cell in zip(columns, cells[1:], strict=True)
        for after in re.findall("\N{RIGHTWARDS ARROW} ([a-z]+)", cell)
    }
    table = {(row.before, row.after, event.__name__) for row in LANE_TRANSITIONS for event in row.events}
    assert changes == table
    assert {row.written_by for row in LANE_TRANSITIONS} <= set(statements(section))


@pytest.mark.parametrize("table", sorted(TRANSITIONS))
def test_the_drawings_of_states_have_the_same_arrows(table: str) -> None:
    arrows = re.findall(r"^ +(\[\*\]|\w+) --> (\w+):", page_of(table), re.M)
    drawn = {(None if before == "[*]" else before, after) for before, after in arrows}
    assert drawn == {(row.before, row.after) for row in TRANSITIONS[table]}


def test_the_lane_rules_make_the_transitions_of_their_table_and_no_other() -> None:
    seen = {
        (before.state, lane.state, type(event))
        for before, event, lane in steps(ReportSettings(park_after_failures=2))
        if lane.state is not before.state
    }
    assert seen == {(row.before, row.after, event) for row in LANE_TRANSITIONS for event in row.events}


def steps(rules: ReportSettings, depth: int = 4) -> list[tuple[Lane, Event, Lane]]:
    """Every lane that some events lead to, with each event and the lane after it, at once or after the parking."""
    first = Lane("nordsoft", changed_at=NOW)
    made: list[tuple[Lane, Event, Lane]] = []
    known, left = {first}, deque([(first, NOW, 0)])
    while left:
        lane, now, length = left.popleft()
        for event in EVENTS:
            for passed in (0, 90, 3600):
                at = now + timedelta(seconds=passed)
                made.append((lane, event, changed := after(lane, event, at, rules)))
                if length < depth and changed not in known:
                    known.add(changed)
                    left.append((changed, at, length + 1))
    return made
