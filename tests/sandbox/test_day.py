"""The file of the sample day is current, has a line for each case, and its answers are compared exactly."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest

from sandbox.contract import CPR
from sandbox.day_refusals import BAD_CPRS
from sandbox.day_sender import check_books
from sandbox.desk_client import DeskClient
from sandbox.make_day import FILE, make
from sandbox.samples import CITIZENS, Line, Run, final_mismatches, invented_cpr, mismatches, read_day
from sandbox.servers import Sandbox
from sandbox.system_layout import default_layout
from tests.sandbox.conftest import Plain

RUN = UUID("11111111-2222-4333-8444-555555555555")
SET_UP, LINES = read_day(FILE)


@pytest.fixture
def run() -> Run:
    return Run(RUN, date(2030, 1, 7))


def test_the_file_is_what_make_day_makes() -> None:
    assert FILE.read_text(encoding="utf-8") == make(), "run: python -m sandbox.make_day"


@pytest.mark.parametrize(
    "name",
    [
        "no-contact-group",
        *(f"cpr-{kind}" for kind in BAD_CPRS),
        "form-not-offered",
        "no-offers",
        "no-times",
        "no-times-immediate",
        "slot-taken-meanwhile",
        "down-book",
        "hangs-book",
        "garbage-book",
        "booked-then-reset",
        "twice-again",
        "other-body",
        "second-waits",
        "second-is-busy",
        "too-late",
        "times-three-forms",
        "unknown-jobcenter",
        "unknown-type",
        "unknown-version",
        "rebook-not-possible",
        "cancel-not-possible",
        "unknown-booking",
        "held-by-uncertain",
        "citizen",
        "citizen-joined",
        "citizen-joined-before-the-end",
        "citizen-joins-nothing",
        "citizen-joins-anothers",
        "citizen-500",
        "citizen-501",
        "citizen-immediate-no-times",
        "citizen-unknown-jobcenter",
        "citizen-empty",
        "citizen-bell",
        "citizen-late",
        "refresh-again",
        "failed-twice-again",
        "report-login-page",
        "report-unknown-citizen",
        "webhook-wrong-address",
        "webhook-500-all-day",
    ],
)
def test_the_day_has_a_line_for_each_case(name: str) -> None:
    assert any(line.id[4:] == name for line in LINES)


def test_every_type_has_good_and_bad_ends_in_several_jobcenters() -> None:
    ends = Counter((line.type, line.expect.get("status")) for line in LINES)
    for type in ("booking.book.v1", "booking.immediate.v1", "booking.rebook.v1", "query.times.v1"):
        assert all(ends[type, status] for status in ("done", "refused", "failed"))
    assert {line.body.get("jobcenterkode") for line in LINES} >= set(default_layout().jobcenters)
    assert 280 <= len(LINES) <= 500


def test_every_line_can_be_sent_and_needs_only_lines_before_it(run: Run) -> None:
    known: set[str] = set()
    for line in LINES:
        assert line.id not in known
        merged = (line.report or {}).get("into")
        for needed in (line.after, (line.when or {}).get("of"), line.expect.get("same_as"), merged):
            assert needed is None or needed in known
        known.add(line.id)
        resolved = json.dumps(run.resolve([line.body, line.before, line.afterwards, line.report]))
        assert '"@' not in resolved
        assert isinstance(run.body(line), bytes)


def test_no_two_bookings_that_succeed_want_the_same_time() -> None:
    """Lines run concurrently, so the outcome for a shared time would depend on their order."""
    wanted = Counter(
        (line.body.get("moedetilbudId"), line.body["starttidspunkt"])
        for line in LINES
        if line.type in ("booking.book.v1", "booking.immediate.v1")
        and line.expect.get("status") == "done"
        and "@" in str(line.body.get("starttidspunkt"))
    )
    assert [time for time, count in wanted.items() if count > 1] == []


def test_no_person_has_the_cpr_number_of_an_invented_citizen() -> None:
    """All birth dates are in the 2030s: years 30 to 36 with 7th digit 4."""
    numbers = [invented_cpr(n) for n in [*range(2000), CITIZENS - 1, RUN.int % CITIZENS]]
    assert len(set(numbers)) == len(numbers)
    assert all(re.fullmatch(r"[0-9]{4}3[0-6]4[0-9]{3}", cpr) and CPR.fullmatch(cpr) for cpr in numbers)


def test_ids_are_new_in_every_run_and_the_same_within_one(run: Run) -> None:
    line = LINES[0]
    assert run.request_id(line) == json.loads(run.body(line))["requestId"]
    assert run.request_id(line) != Run(uuid4(), run.first_day).request_id(line)


def test_times_are_relative_to_the_first_day_and_to_now(run: Run) -> None:
    assert run.resolve("@slot:1/3+15") == "2030-01-08T09:45:00+01:00"
    late = datetime.fromisoformat(run.resolve("@now:-60"))
    assert 55 < (datetime.now(UTC) - late).total_seconds() < 90
    run.answers["a"] = {"result": {"booking": {"indkaldelseId": "x"}}}
    assert run.resolve({"a": ["@booked:a"]}) == {"a": ["x"]}


AT = "2030-01-07T08:00:00+01:00"


@pytest.mark.parametrize(
    ("expect", "answer", "problem"),
    [
        ({"status": "done"}, {"status": "done"}, ""),
        ({"status": "done"}, {"status": "failed"}, "status"),
        ({"status": "refused", "reason": "busy"}, {"status": "refused", "reason": "conflict"}, "reason"),
        (
            {"status": "failed", "fejlkode": 2},
            {"status": "failed", "fejlkode": 4, "fejltekst": "Nej"},
            "fejlkode",
        ),
        ({"status": "refused", "fields": ["cpr"]}, {"status": "refused", "fields": [{"field": "cpr"}]}, ""),
        ({"status": "refused", "fields": ["cpr"]}, {"status": "refused"}, "fields"),
        ({"count": 2}, {"result": {"tider": [1, 2]}}, ""),
        ({"count": 2}, {"result": {"moedetilbud": [1]}}, "count"),
        (
            {"form": "digitalt"},
            {"result": {"booking": {"moedeform": "telefonisk", "starttidspunkt": AT}}},
            "form",
        ),
        ({}, {"result": {"booking": {"starttidspunkt": "2030-01-07T07:00:00+00:00"}}}, ""),
        ({}, {"result": {"booking": {"starttidspunkt": "2030-01-07T08:00:00+00:00"}}}, "another time"),
    ],
)
def test_an_answer_is_compared_with_the_expected_one(expect: Any, answer: Any, problem: str) -> None:
    found = mismatches(Line("1", "booking.book.v1", {}, expect), {"starttidspunkt": AT}, answer)
    assert (problem in found[0]) if problem else found == []


def test_a_final_outcome_is_compared_with_the_expected_one() -> None:
    assert final_mismatches({"outcome": "done"}, {"outcome": "done"}) == []
    assert final_mismatches({"outcome": "failed", "fejlkode": 4}, {"outcome": "done"})


async def test_the_books_are_compared_with_the_day(
    sandbox: Sandbox, anna: Plain, http: aiohttp.ClientSession
) -> None:
    """Exactly the expected bookings are in the books, and every call keeps to the contract."""
    desk = DeskClient(sandbox.desk_url, http)
    line = Line("1", "booking.book.v1", {}, {"status": "done"})
    systems = list((await desk.index())["systems"])
    assert await check_books([line], desk, systems) == ["meetings booked: 0 in the books, 1 expected"]
    await anna.book(anna.wish())
    assert await check_books([line], desk, systems) == []
    assert await check_books([], desk, systems) == ["meetings booked: 1 in the books, 0 expected"]
    await anna.find(uuid4(), traceparent="no")
    assert len(await check_books([line], desk, systems)) == 1
