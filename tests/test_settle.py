"""The rows of docs/architecture.md#outcomes that `settle` decides."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from broker.errors import (
    AtCapacity,
    CallFacts,
    ContractBroken,
    Misconfigured,
    NothingOffered,
    NotSent,
    Refused,
    Rejected,
    Unavailable,
    Unknown,
)
from broker.reports.enrichment import MOST_TEXT, Addressee, joined, report_for, text_of
from broker.settle import done, expired, not_carried_out, settle
from schemas.answers import Answer, ReceiptResult
from schemas.codes import ErrorCode, Reason, Status
from schemas.envelope import Request
from schemas.failure_reports import Report
from schemas.personal import Cpr
from schemas.requests import Book, Cancel, CitizenReport

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
SEEN = CallFacts("birk", "create", "status 502", 502, None, 812)
CPR = "0101364001"


COMMON = {"sentAt": NOW.isoformat(), "cpr": CPR, "jobcenterkode": "90001"}


def book() -> Book:
    return Book.from_fields(
        {
            "requestId": str(uuid4()),
            "sentAt": NOW.isoformat(),
            "cpr": CPR,
            "jobcenterkode": "90001",
            "kontaktgruppe": "1",
            "moedetilbudId": str(uuid4()),
            "starttidspunkt": NOW.isoformat(),
            "moedeform": "telefonisk",
        }
    )


TABLE = [
    # what happened, status, fejlkode, reason, whether it is our own doing
    (Refused(Reason.SLOT_TAKEN), Status.REFUSED, None, Reason.SLOT_TAKEN, False),
    (NothingOffered(ErrorCode.NO_TIMES), Status.FAILED, ErrorCode.NO_TIMES, None, False),
    (NothingOffered(ErrorCode.NO_OFFERS), Status.FAILED, ErrorCode.NO_OFFERS, None, False),
    (Unknown(SEEN, NOW), Status.UNCERTAIN, None, None, False),
    (Unavailable(SEEN, 3.0), Status.FAILED, ErrorCode.OTHER, None, False),
    (Misconfigured(SEEN), Status.FAILED, ErrorCode.OTHER, None, True),
    (ContractBroken(SEEN), Status.FAILED, ErrorCode.OTHER, None, False),
    (Rejected(SEEN), Status.FAILED, ErrorCode.OTHER, None, False),
    (AtCapacity(SEEN), Status.FAILED, ErrorCode.OTHER, None, True),
    (NotSent(SEEN), Status.FAILED, ErrorCode.OTHER, None, True),
    (ZeroDivisionError("a bug"), Status.FAILED, ErrorCode.OTHER, None, True),
]


@pytest.mark.parametrize(
    ("error", "status", "code", "reason", "ours"), TABLE, ids=[type(row[0]).__name__ for row in TABLE]
)
def test_every_kind_of_bad_news_becomes_what_design_5_says(
    error: Exception, status: Status, code: ErrorCode | None, reason: Reason | None, ours: bool
) -> None:
    settlement = settle(book(), error, NOW)
    assert (settlement.answer.status, settlement.answer.error_code) == (status, code)
    assert (settlement.answer.reason, settlement.ours) == (reason, ours)


def test_only_a_failure_may_be_reported_by_the_citizen() -> None:
    for error, status, *_ in TABLE:
        assert settle(book(), error, NOW).answer.can_report is (status is Status.FAILED)


def test_an_uncertain_ending_remembers_when_the_call_was_last_sent() -> None:
    assert settle(book(), Unknown(SEEN, NOW), NOW).last_sent_at == NOW


def test_the_answer_to_a_failure_says_it_in_the_words_of_the_release_note() -> None:
    answer = Answer.model_validate_json(settle(book(), Unavailable(SEEN), NOW).answer.to_json())
    assert answer.text is not None
    assert answer.text.startswith("Systemfejl i kontakten med jobcentrets bookingsystem.")


ALL = Addressee("fyrtaarn", (2, 3, 4))


def reported(message: Request, error: Exception, addressee: Addressee = ALL) -> Report | None:
    new = report_for(message, settle(message, error, NOW), addressee, traceparent=None)
    return Report.from_json(new.content) if new else None


class TestEnrichment:
    """A failed booking is enriched once, when it fails (docs/architecture.md#reports)."""

    def test_a_report_has_all_seven_fields_of_the_release_note(self) -> None:
        message = book()
        report = reported(message, Unavailable(SEEN))
        assert report is not None
        body = json.loads(report.to_contract())
        assert report.cpr.reveal() == CPR
        assert body["moedetilbudId"] == str(message.offer_id)
        assert "indkaldelseId" not in body  # a failed book has none: there is none
        assert (body["fejlkode"], body["fejlOphav"]) == (4, {"id": 32, "navn": "Jobnet"})
        assert body["fejlTidspunkt"] == "2026-07-01T14:00:00+02:00"
        assert "oprettelse af booking" in body["fejltekst"]
        assert "812 ms" in body["fejltekst"]

    def test_the_report_of_a_meeting_that_exists_names_it(self) -> None:
        message = cancel()
        report = reported(message, Rejected(SEEN))
        assert report is not None
        assert report.invitation_id == message.invitation_id

    def test_what_did_not_fail_is_not_reported(self) -> None:
        assert report_for(book(), expired(book(), NOW), ALL, traceparent=None) is None
        assert reported(book(), Refused(Reason.SLOT_TAKEN)) is None
        assert reported(book(), Unknown(SEEN, NOW)) is None

    @pytest.mark.parametrize("error", [AtCapacity(SEEN), NotSent(SEEN), Misconfigured(SEEN), ValueError()])
    def test_what_our_own_limits_set_up_or_bugs_refused_is_never_reported(self, error: Exception) -> None:
        assert reported(book(), error) is None

    @pytest.mark.parametrize(("wanted", "made"), [((4,), False), ((2, 4), True), ((), False)])
    def test_a_full_calendar_is_reported_only_to_a_supplier_that_wants_it(
        self, wanted: tuple[int, ...], made: bool
    ) -> None:
        report = reported(book(), NothingOffered(ErrorCode.NO_TIMES), Addressee("fyrtaarn", wanted))
        assert (report is not None) is made

    def test_equal_failures_have_the_same_mark_and_others_have_not(self) -> None:
        message, again = book(), book().model_copy(update={"cpr": Cpr("0101364002")})
        first, same, other = (
            report_for(m, settle(m, Unavailable(SEEN), NOW), ALL, traceparent=None)
            for m in (message, message.model_copy(update={"request_id": uuid4()}), again)
        )
        assert first is not None
        assert same is not None
        assert other is not None
        assert first.merge == same.merge != other.merge
        assert first.report_id != same.report_id

    def test_an_uncertain_booking_that_proves_not_booked_is_reported_in_its_own_words(self) -> None:
        message = book()
        new = report_for(message, not_carried_out(message, NOW), ALL, traceparent=None)
        assert new is not None
        assert "ikke er udført" in Report.from_json(new.content).error_text


class TestCitizensWords:
    """Release note 3.2: "Den fejltekst, som borgeren har indskrevet"."""

    def test_they_are_always_reported_and_never_merged(self) -> None:
        message = citizens()
        settlement = done(message, ReceiptResult(report_id=uuid4(), received_at=NOW), NOW)
        new = report_for(message, settlement, Addressee("fyrtaarn", ()), traceparent=None)
        assert new is not None
        assert (new.kind, new.merge, new.joins) == ("citizen", None, message.failed_request_id)
        assert Report.from_json(new.content).error_text == "Siden gik i stå"

    def test_the_failed_request_adds_what_the_citizen_did_not_say(self) -> None:
        failed = book()
        report = joined(words(), failed)
        assert (report.offer_id, report.type) == (failed.offer_id, "booking.book.v1")
        assert report.request_id == failed.request_id

    def test_somebody_elses_request_adds_nothing_and_is_not_named(self) -> None:
        failed = book().model_copy(update={"cpr": Cpr("0101364002")})
        report = joined(words(), failed)
        assert (report.offer_id, report.request_id) == (None, None)


def words() -> Report:
    message = citizens()
    settlement = done(message, ReceiptResult(report_id=uuid4(), received_at=NOW), NOW)
    new = report_for(message, settlement, ALL, traceparent=None)
    assert new is not None
    return Report.from_json(new.content)


def cancel() -> Cancel:
    return Cancel.from_fields({**COMMON, "requestId": str(uuid4()), "indkaldelseId": str(uuid4())})


def citizens() -> CitizenReport:
    return CitizenReport.from_fields(
        {
            **COMMON,
            "requestId": str(uuid4()),
            "fejlkode": 4,
            "fejltekst": "Siden gik i stå",
            "failedRequestId": str(uuid4()),
        }
    )


def test_a_report_text_never_exceeds_what_the_contract_holds() -> None:
    assert len(text_of(ErrorCode.OTHER, CallFacts("x", "s" * 600, "w" * 600))) == MOST_TEXT


def test_a_cause_is_one_word_of_ours() -> None:
    assert AtCapacity(SEEN).cause == "at-capacity"
