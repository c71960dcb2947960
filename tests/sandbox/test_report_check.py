"""Each report of the day is compared with the ledger, the inbox and the outcome event, field by field."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any
from uuid import UUID

import pytest

from sandbox.report_check import ENDS, End, ReportCheck, causes_from, ends_from, report_id, rows_of
from sandbox.samples import Line, Run

RUN = UUID("11111111-2222-4333-8444-555555555555")
AT = "2030-01-07T09:00:00+01:00"
OFFER = "11111111-2222-4333-8444-666666666666"
WORDS = "Det gik ikke."
BODY = {"cpr": "@citizen:1", "jobcenterkode": "90001", "moedetilbudId": OFFER}
WANT = {"end": "delivered", "supplier": "fyrtaarn", "fejlkode": 4, "moedetilbudId": OFFER}
LINE = Line("001-book", "booking.book.v1", BODY, {"status": "failed", "fejlkode": 4}, report=WANT)
OWN = replace(LINE, type="report.citizen.v1", report=WANT | {"fejltekst": WORDS})


@pytest.fixture
def run() -> Run:
    run = Run(RUN, date(2030, 1, 7))
    run.answers[LINE.id] = {"answeredAt": "2030-01-07T08:00:00.5+00:00"}
    return run


def arrived(run: Run, **change: Any) -> dict[str, Any]:
    """The report in the supplier's inbox if all is well."""
    good = {
        "citizen": run.token(BODY),
        "moedetilbudId": OFFER,
        "indkaldelseId": None,
        "fejlkode": 4,
        "fejltekst": "Systemfejl i kontakten med jobcentrets bookingsystem. Trin: x.",
        "fejlOphav": {"id": 32, "navn": "Jobnet"},
        "fejlTidspunkt": AT,
        "jobcenterkode": "90001",
        "times": 1,
        "reportId": None,
    }
    return good | change


def problems_of(run: Run, line: Line, end: End | None, *reports: dict[str, Any]) -> list[str]:
    """All problems found for one line."""
    name = report_id(run.request_id(line))
    ends = {name: end} if end else {}
    events = {name: {"outcome": end.state, "cause": end.cause}} if end and end.state in ENDS else {}
    causes = {name: end.cause} if end and end.cause else {}
    check = ReportCheck(run, ends, {"fyrtaarn": list(reports), "moelle": []}, events, causes)
    return [text for result in check.results([line]) for text in result.problems] + check.unexpected([line])


DELIVERED = End("delivered")


def test_a_report_that_arrived_as_expected_has_no_problem(run: Run) -> None:
    assert problems_of(run, LINE, DELIVERED, arrived(run)) == []
    assert problems_of(run, OWN, DELIVERED, arrived(run, fejltekst=WORDS)) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fejlkode": 2}, "fejlkode is 2, not 4"),
        ({"moedetilbudId": None}, "moedetilbudId is None"),
        ({"indkaldelseId": OFFER}, "indkaldelseId is"),
        ({"fejlOphav": {"id": 30, "navn": "DFDG"}}, "fejlOphav"),
        ({"fejlTidspunkt": "2030-01-07T08:00:00+00:00"}, "Danish time"),
        ({"jobcenterkode": "90002"}, "jobcenter"),
        ({"times": 2}, "2 times, not 1"),
        ({"citizen": "c-other"}, "did not reach fyrtaarn"),
        ({"fejltekst": "Traceback"}, "did not reach fyrtaarn"),
        ({"fejlTidspunkt": "2030-01-07T10:00:00+01:00"}, "did not reach fyrtaarn"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_each_of_the_seven_fields_is_compared(run: Run, change: dict[str, Any], named: str) -> None:
    assert named in " | ".join(problems_of(run, LINE, DELIVERED, arrived(run, **change)))


def test_a_webhook_has_more_fields_and_all_of_them_are_compared(run: Run) -> None:
    own_id = run.request_id(LINE)
    webhook = {"reportId": report_id(own_id), "requestId": own_id, "kind": "automatic"}
    webhook["requestType"] = "booking.book.v1"
    assert problems_of(run, LINE, DELIVERED, arrived(run, **webhook)) == []
    for name in webhook:
        assert name in problems_of(run, LINE, DELIVERED, arrived(run, **webhook | {name: "other"}))[0]
    run.answers["5"] = run.answers[LINE.id]
    joined = replace(
        OWN, report=OWN.report | {"requestId": "@request:5", "requestType": "x"} if OWN.report else None
    )
    webhook |= {
        "kind": "citizen",
        "requestId": run.resolve("@request:5"),
        "requestType": "x",
        "fejltekst": WORDS,
    }
    assert problems_of(run, joined, DELIVERED, arrived(run, **webhook)) == []
    assert "requestId" in problems_of(run, OWN, DELIVERED, arrived(run, **webhook))[0]


@pytest.mark.parametrize(
    ("want", "end", "wrong"),
    [
        ({"end": "waiting"}, End("waiting"), ""),
        ({"end": "waiting"}, End("delivering"), ""),
        ({"end": "waiting"}, End("dead", "exhausted"), "dead (exhausted), not waiting"),
        ({"end": "dead", "cause": "rejected"}, End("dead", "rejected"), ""),
        ({"end": "dead", "cause": "rejected"}, End("dead", "crash"), "dead (crash), not dead (rejected)"),
        ({"end": "dead", "cause": "unroutable"}, None, "not there"),
    ],
)
def test_a_report_that_was_not_delivered_has_its_cause(
    run: Run, want: dict[str, Any], end: End | None, wrong: str
) -> None:
    found = problems_of(run, replace(LINE, report=WANT | want), end)
    assert (wrong in found[0]) if wrong else found == []


def test_a_dead_report_may_not_be_in_the_inbox(run: Run) -> None:
    dead = replace(LINE, report=WANT | {"end": "dead", "cause": "rejected"})
    assert "not delivered" in problems_of(run, dead, End("dead", "rejected"), arrived(run))[0]


def test_an_unexpected_report_is_a_problem(run: Run) -> None:
    silent = replace(LINE, report=None)
    assert "no line leads to" in problems_of(run, silent, None, arrived(run))[0]
    assert "is not expected" in problems_of(run, silent, DELIVERED)[0]
    assert "no line leads to" in problems_of(run, LINE, DELIVERED, arrived(run), arrived(run))[0]


def test_equal_failures_are_counted_on_the_first_ones_report(run: Run) -> None:
    again = Line("002-again", LINE.type, BODY, {}, report={"end": "merged", "into": LINE.id})
    for count, wrong in ((2, []), (1, ["001-book's report counts 1, not at least 2"])):
        ends = {report_id(run.request_id(LINE)): End("delivered", count=count)}
        webhook = {report_id(run.request_id(LINE)): {"outcome": "delivered"}}
        check = ReportCheck(run, ends, {"fyrtaarn": [arrived(run)]}, webhook, {})
        assert [text for result in check.results([LINE, again]) for text in result.problems] == wrong
        assert check.unexpected([LINE, again]) == []


def test_the_report_of_an_uncertain_booking_has_the_time_of_its_final_outcome(run: Run) -> None:
    late = arrived(run, fejlTidspunkt="2030-01-07T09:01:00+01:00")
    assert problems_of(run, replace(LINE, final={"outcome": "failed"}), DELIVERED, late) == []


def test_a_citizens_joined_report_has_the_time_of_the_failure(run: Run) -> None:
    joined = replace(
        OWN, id="002-joined", report=WANT | {"fejltekst": WORDS, "requestId": f"@request:{LINE.id}"}
    )
    run.answers[joined.id] = {"answeredAt": "2030-01-07T08:05:00+00:00"}
    report = arrived(run, fejltekst=WORDS)
    assert problems_of(run, joined, DELIVERED, report) == []
    late = report | {"fejlTidspunkt": "2030-01-07T09:05:00+01:00"}
    assert "did not reach fyrtaarn" in problems_of(run, joined, DELIVERED, late)[0]


def test_the_rows_of_a_command_are_read_and_a_waiting_report_has_no_cause(run: Run) -> None:
    rows = rows_of('[{"report_id": "a", "state": "waiting", "cause": "unavailable", "count": 2}]')
    assert ends_from(rows) == {"a": End("waiting", None, 2)}
    with pytest.raises(ValueError, match="list"):
        rows_of('{"error": "no"}')


@pytest.mark.parametrize(
    ("event", "wrong"),
    [
        ({}, "is none"),
        ({"outcome": "delivered"}, "is delivered"),
        ({"outcome": "dead", "cause": "crash"}, "is crash"),
        ({"outcome": "dead", "cause": "rejected"}, ""),
    ],
    ids=["none", "other", "cause", "good"],
)
def test_every_end_has_an_outcome_event(run: Run, event: dict[str, Any], wrong: str) -> None:
    dead = replace(LINE, report=WANT | {"end": "dead", "cause": "rejected"})
    name = report_id(run.request_id(dead))
    check = ReportCheck(
        run, {name: End("dead", "rejected")}, {}, {name: event} if event else {}, {name: "rejected"}
    )
    [found] = check.results([dead])
    assert (wrong in found.problems[0]) if wrong else found.problems == []


def test_only_a_dead_report_has_a_dead_letter(run: Run) -> None:
    dead = replace(LINE, report=WANT | {"end": "dead", "cause": "rejected"})
    name = report_id(run.request_id(LINE))
    ends, webhook = {name: End("dead", "rejected")}, {name: {"outcome": "dead", "cause": "rejected"}}
    [found] = ReportCheck(run, ends, {}, webhook, {}).results([dead])
    assert found.problems == ["the cause of its dead letter is None, not rejected"]
    rows = [{"letter_id": name, "kind": "report", "cause": "rejected"}]
    causes = causes_from([*rows, {"letter_id": "b", "kind": "booking", "cause": "unverified"}])
    assert causes == {name: "rejected"}
    ends, delivered = {name: DELIVERED}, {name: {"outcome": "delivered"}}
    [found] = ReportCheck(run, ends, {"fyrtaarn": [arrived(run)]}, delivered, causes).results([LINE])
    assert found.problems == ["the cause of its dead letter is rejected, not None"]


def test_equal_reports_are_distinguished_by_their_ids(run: Run) -> None:
    twin = replace(OWN, id="002-again")
    run.answers[twin.id] = run.answers[LINE.id]
    ids = [report_id(run.request_id(line)) for line in (OWN, twin)]
    arrivals = [
        arrived(run, fejltekst=WORDS, kind="citizen", requestId=None, requestType=None, reportId=i)
        for i in ids
    ]
    webhook = {name: {"outcome": "delivered"} for name in ids}
    check = ReportCheck(run, dict.fromkeys(ids, DELIVERED), {"fyrtaarn": arrivals[::-1]}, webhook, {})
    assert [result.problems for result in check.results([OWN, twin])] == [[], []]
