"""The table "what happened, and what it becomes" of DESIGN 5 as far as it is judged in `settle`: pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from broker.errors import (
    AtCapacity,
    BadMessage,
    ContractBroken,
    Misconfigured,
    NothingOffered,
    NotSent,
    Refused,
    Rejected,
    Seen,
    Unavailable,
    Unknown,
)
from broker.failures import MOST_TEXT, failure_of, text_of
from broker.settle import cause_of, expired, settle
from schemas.answers import Answer
from schemas.codes import ErrorCode, Reason, Status
from schemas.envelope import FieldProblem
from schemas.requests import Book, Cancel

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
SEEN = Seen("birk", "create", "status 502", 502, None, 812)
CPR = "0101364001"


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
    (BadMessage(FieldProblem(field="cpr", problem="no")), Status.REFUSED, None, Reason.INVALID, False),
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


def test_a_failure_carries_everything_that_a_report_needs() -> None:
    message = book()
    raw = failure_of(message, settle(message, Unavailable(SEEN), NOW), traceparent=None)
    assert raw is not None
    facts = json.loads(raw)
    assert facts["cpr"] == CPR
    assert facts["moedetilbudId"] == str(message.offer_id)
    assert "indkaldelseId" not in facts  # the report of a failed book carries none: there is none (DESIGN 6)
    assert (facts["fejlkode"], facts["fejlOphav"]) == (4, {"id": 32, "navn": "Jobnet"})
    assert facts["fejlTidspunkt"] == "2026-07-01T14:00:00+02:00"
    assert "oprettelse af booking" in facts["fejltekst"]
    assert facts["egetAnsvar"] is False


def test_the_report_of_a_meeting_that_exists_names_it() -> None:
    message = Cancel.from_fields(
        {
            "requestId": str(uuid4()),
            "sentAt": NOW.isoformat(),
            "cpr": CPR,
            "jobcenterkode": "90001",
            "indkaldelseId": str(uuid4()),
        }
    )
    raw = failure_of(message, settle(message, Rejected(SEEN), NOW), traceparent=None)
    assert raw is not None
    assert json.loads(raw)["indkaldelseId"] == str(message.invitation_id)


def test_what_did_not_fail_has_nothing_to_report() -> None:
    assert failure_of(book(), expired(book(), NOW), traceparent=None) is None


def test_a_report_text_never_exceeds_what_the_contract_holds() -> None:
    assert len(text_of(ErrorCode.OTHER, Seen("x", "s" * 600, "w" * 600))) == MOST_TEXT


def test_a_cause_is_one_word_of_ours() -> None:
    assert cause_of(AtCapacity(SEEN)) == "at-capacity"
