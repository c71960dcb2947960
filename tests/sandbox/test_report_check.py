"""Each report of the day is judged against the ledger's word and the supplier's own books, field by field."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any
from uuid import UUID

import pytest

from sandbox.report_check import ENDS, End, ReportCheck, ends_from, letters_from, report_id, rows_of
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
    """What lies in the supplier's inbox when all is well."""
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


def judged(run: Run, line: Line, end: End | None, *reports: dict[str, Any]) -> list[str]:
    """Every sentence about one line."""
    name = report_id(run.request_id(line))
    ends = {name: end} if end else {}
    events = {name: {"outcome": end.state, "cause": end.cause}} if end and end.state in ENDS else {}
    letters = {name: end.cause} if end and end.cause else {}
    post = ReportCheck(run, ends, {"fyrtaarn": list(reports), "moelle": []}, events, letters)
    return [sentence for one in post.judged([line]) for sentence in one.wrong] + post.surplus([line])


DELIVERED = End("delivered")


def test_a_report_that_arrived_as_it_must_is_met(run: Run) -> None:
    assert judged(run, LINE, DELIVERED, arrived(run)) == []
    assert judged(run, OWN, DELIVERED, arrived(run, fejltekst=WORDS)) == []


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
        ({"citizen": "c-other"}, "never reached fyrtaarn"),
        ({"fejltekst": "Traceback"}, "never reached fyrtaarn"),
        ({"fejlTidspunkt": "2030-01-07T10:00:00+01:00"}, "never reached fyrtaarn"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_each_of_the_seven_fields_is_compared(run: Run, change: dict[str, Any], named: str) -> None:
    assert named in " | ".join(judged(run, LINE, DELIVERED, arrived(run, **change)))


def test_a_webhook_tells_more_and_all_of_it_is_compared(run: Run) -> None:
    own_id = run.request_id(LINE)
    told = {"reportId": report_id(own_id), "requestId": own_id, "kind": "automatic"}
    told["requestType"] = "booking.book.v1"
    assert judged(run, LINE, DELIVERED, arrived(run, **told)) == []
    for name in told:
        assert name in judged(run, LINE, DELIVERED, arrived(run, **told | {name: "other"}))[0]
    joined = replace(
        OWN, report=OWN.report | {"requestId": "@request:5", "requestType": "x"} if OWN.report else None
    )
    told |= {
        "kind": "citizen",
        "requestId": run.resolve("@request:5"),
        "requestType": "x",
        "fejltekst": WORDS,
    }
    assert judged(run, joined, DELIVERED, arrived(run, **told)) == []
    assert "requestId" in judged(run, OWN, DELIVERED, arrived(run, **told))[0]


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
def test_what_was_not_delivered_must_say_why(
    run: Run, want: dict[str, Any], end: End | None, wrong: str
) -> None:
    found = judged(run, replace(LINE, report=WANT | want), end)
    assert (wrong in found[0]) if wrong else found == []


def test_a_dead_report_may_not_lie_in_the_books(run: Run) -> None:
    dead = replace(LINE, report=WANT | {"end": "dead", "cause": "rejected"})
    assert "although" in judged(run, dead, End("dead", "rejected"), arrived(run))[0]


def test_what_nobody_expected_is_told(run: Run) -> None:
    silent = replace(LINE, report=None)
    assert "no line leads to" in judged(run, silent, None, arrived(run))[0]
    assert "was not to be" in judged(run, silent, DELIVERED)[0]
    assert "no line leads to" in judged(run, LINE, DELIVERED, arrived(run), arrived(run))[0]


def test_equal_failures_are_counted_on_the_first_ones_report(run: Run) -> None:
    again = Line("002-again", LINE.type, BODY, {}, report={"end": "merged", "into": LINE.id})
    for count, wrong in ((2, []), (1, ["001-book's report counts 1, not at least 2"])):
        ends = {report_id(run.request_id(LINE)): End("delivered", count=count)}
        told = {report_id(run.request_id(LINE)): {"outcome": "delivered"}}
        post = ReportCheck(run, ends, {"fyrtaarn": [arrived(run)]}, told, {})
        assert [s for one in post.judged([LINE, again]) for s in one.wrong] == wrong
        assert post.surplus([LINE, again]) == []


def test_the_last_word_on_an_uncertain_booking_comes_later(run: Run) -> None:
    late = arrived(run, fejlTidspunkt="2030-01-07T09:01:00+01:00")
    assert judged(run, replace(LINE, final={"outcome": "failed"}), DELIVERED, late) == []


def test_the_commands_rows_are_read_and_a_pauses_cause_is_no_end(run: Run) -> None:
    rows = rows_of('[{"report_id": "a", "state": "waiting", "cause": "unavailable", "count": 2}]')
    assert ends_from(rows) == {"a": End("waiting", None, 2)}
    with pytest.raises(ValueError, match="list"):
        rows_of('{"error": "no"}')


@pytest.mark.parametrize(
    ("event", "wrong"),
    [
        ({}, "said nothing"),
        ({"outcome": "delivered"}, "said delivered"),
        ({"outcome": "dead", "cause": "crash"}, "dead of crash"),
        ({"outcome": "dead", "cause": "rejected"}, ""),
    ],
    ids=["none", "other", "cause", "good"],
)
def test_every_end_is_told_to_whoever_listens(run: Run, event: dict[str, Any], wrong: str) -> None:
    dead = replace(LINE, report=WANT | {"end": "dead", "cause": "rejected"})
    name = report_id(run.request_id(dead))
    post = ReportCheck(
        run, {name: End("dead", "rejected")}, {}, {name: event} if event else {}, {name: "rejected"}
    )
    [found] = post.judged([dead])
    assert (wrong in found.wrong[0]) if wrong else found.wrong == []


def test_a_dead_report_has_a_letter_and_no_other_one(run: Run) -> None:
    dead = replace(LINE, report=WANT | {"end": "dead", "cause": "rejected"})
    name = report_id(run.request_id(LINE))
    gone, told = {name: End("dead", "rejected")}, {name: {"outcome": "dead", "cause": "rejected"}}
    [found] = ReportCheck(run, gone, {}, told, {}).judged([dead])
    assert found.wrong == ["its dead letter says None, not rejected"]
    rows = [{"letter_id": name, "kind": "report", "cause": "rejected"}]
    letters = letters_from([*rows, {"letter_id": "b", "kind": "booking", "cause": "unverified"}])
    assert letters == {name: "rejected"}
    there, delivered = {name: DELIVERED}, {name: {"outcome": "delivered"}}
    [found] = ReportCheck(run, there, {"fyrtaarn": [arrived(run)]}, delivered, letters).judged([LINE])
    assert found.wrong == ["its dead letter says rejected, not None"]


def test_twins_are_told_apart_by_their_ids(run: Run) -> None:
    twin = replace(OWN, id="002-again")
    run.answers[twin.id] = run.answers[LINE.id]
    ids = [report_id(run.request_id(line)) for line in (OWN, twin)]
    came = [
        arrived(run, fejltekst=WORDS, kind="citizen", requestId=None, requestType=None, reportId=i)
        for i in ids
    ]
    told = {name: {"outcome": "delivered"} for name in ids}
    post = ReportCheck(run, dict.fromkeys(ids, DELIVERED), {"fyrtaarn": came[::-1]}, told, {})
    assert [one.wrong for one in post.judged([OWN, twin])] == [[], []]
