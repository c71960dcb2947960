"""Answers, outcome events and the Danish texts (docs/contract.md#answers, release note 3.1 to 3.3)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from schemas.answers import Answer, Result, TimesResult
from schemas.codes import FAULT_REASONS, TEXTS_DA, ErrorCode, Fault, MeetingForm, Origin, Reason, Status
from schemas.external import Offer
from schemas.outcome_events import Outcome, OutcomeEvent
from schemas.wire import FieldProblem
from tests.schemas.samples import (
    BOOK,
    CPR,
    NOW,
    OFFER,
    OFFER_ID,
    REQUEST_ID,
    RESULTS,
    ROW,
)

HEAD = {"requestId": REQUEST_ID, "type": "booking.book.v1", "answeredAt": "2026-03-02T12:00:00Z"}
PLAIN = {"fields": [], "canReport": False}
SYSTEM_ERROR = "Systemfejl i kontakten med jobcentrets bookingsystem."


@pytest.mark.parametrize(("result", "wire"), RESULTS, ids=range(len(RESULTS)))
def test_a_done_answer_carries_its_result_and_can_be_read_back(result: Result, wire: dict[str, Any]) -> None:
    # When
    answer = Answer.done(BOOK, result, now=NOW)

    # Then
    assert json.loads(answer.to_json()) == {**HEAD, **PLAIN, "status": "done", "result": wire}
    again = Answer.model_validate_json(answer.to_json())
    assert again == answer
    assert type(again.result) is type(result)


def test_a_failed_answer_says_the_code_and_lets_the_citizen_report() -> None:
    """`failed` has the fejlkode, the Danish text for the citizen, and `canReport: true` (docs/contract.md#answers)."""
    answer = Answer.failed(BOOK, ErrorCode.OTHER, now=NOW)
    assert json.loads(answer.to_json()) == {
        **HEAD,
        "status": "failed",
        "text": SYSTEM_ERROR,
        "fejlkode": 4,
        "fejltekst": SYSTEM_ERROR,
        "fields": [],
        "canReport": True,
    }
    assert (
        Answer.failed(BOOK, ErrorCode.NO_TIMES, "Kalenderen er tom.", now=NOW).error_text
        == "Kalenderen er tom."
    )
    assert Answer.model_validate_json(answer.to_json()) == answer


def test_a_refused_answer_names_the_fields() -> None:
    problem = FieldProblem(field="cpr", problem="is required")
    answer = Answer.refused(BOOK.request_id, BOOK.type, Reason.INVALID, (problem,), now=NOW)
    assert json.loads(answer.to_json()) == {
        **HEAD,
        "status": "refused",
        "reason": "invalid",
        "text": TEXTS_DA[Reason.INVALID],
        "fields": [{"field": "cpr", "problem": "is required"}],
        "canReport": False,
    }
    assert Answer.model_validate_json(answer.to_json()) == answer


def test_a_refusal_never_repeats_a_type_that_is_not_ours() -> None:
    answer = Answer.refused(None, f"x{CPR}", Reason.INVALID, now=NOW)
    assert "type" not in json.loads(answer.to_json())
    assert CPR.encode() not in answer.to_json()


@dataclass(frozen=True)
class Claim:
    request_id: UUID
    type: str


@pytest.mark.parametrize("status", [Status.EXPIRED, Status.UNCERTAIN])
def test_expired_and_uncertain_are_said_of_a_request_or_a_claim(status: Status) -> None:
    # Given
    say = Answer.expired if status is Status.EXPIRED else Answer.uncertain
    claim = Claim(BOOK.request_id, BOOK.type)

    # Then
    assert say(claim, now=NOW) == say(BOOK, now=NOW)
    assert json.loads(say(BOOK, now=NOW).to_json()) == {
        **HEAD,
        **PLAIN,
        "status": status.value,
        "text": TEXTS_DA[status],
    }


def test_there_are_at_most_thirty_rows() -> None:
    """Release note 3.1: "Der kan vises op til 30 tider"."""
    assert len(TimesResult(rows=(ROW,) * 30).rows) == 30
    with pytest.raises(ValidationError):
        TimesResult(rows=(ROW,) * 31)


def test_an_answer_needs_a_moment_with_offset() -> None:
    with pytest.raises(ValidationError):
        Answer.expired(BOOK, now=datetime(2026, 3, 2))  # noqa: DTZ001, RUF100 - naive on purpose


@pytest.mark.parametrize("outcome", Outcome)
def test_an_outcome_goes_out_under_family_and_outcome(outcome: Outcome) -> None:
    """Every outcome is published, without personal data, to the topic exchange `jobnet.outcomes`: `booking.done`,
    `booking.failed`, … (docs/contract.md#outcome-events).
    """
    event = OutcomeEvent(
        request_id=UUID(REQUEST_ID),
        type="booking.book.v1",
        outcome=outcome,
        reason=Reason.BUSY,
        error_code=ErrorCode.OTHER,
        jobcenter_code="10100",
        system="kalender-a",
        supplier="leverandoer-a",
        corrects_uncertain=True,
        occurred_at=NOW,
    )
    assert event.routing_key == f"booking.{outcome.value}"
    assert json.loads(event.to_json()) == {
        "requestId": REQUEST_ID,
        "type": "booking.book.v1",
        "outcome": outcome.value,
        "reason": "busy",
        "fejlkode": 4,
        "jobcenterkode": "10100",
        "system": "kalender-a",
        "supplier": "leverandoer-a",
        "correctsUncertain": True,
        "occurredAt": "2026-03-02T12:00:00Z",
    }
    assert OutcomeEvent.model_validate_json(event.to_json()) == event


def test_an_outcome_of_an_unreadable_message_has_a_place_too() -> None:
    event = OutcomeEvent(outcome=Outcome.REFUSED, reason=Reason.INVALID, occurred_at=NOW)
    assert event.routing_key == "unknown.refused"


def test_an_outcome_has_no_field_for_anything_personal() -> None:
    assert not set(OutcomeEvent.model_fields) & {"cpr", "text", "error_text", "caseworker", "result"}


def test_every_status_is_an_outcome() -> None:
    of_reports = {"delivered", "dead", "discarded"}
    assert {each.value for each in Outcome} == {each.value for each in Status} | {"unverified"} | of_reports


def test_the_faults_are_the_contracts_closed_list_and_each_has_its_reason() -> None:
    """The closed list of fault types (docs/contract.md#faults)."""
    names = (
        "ukendt-borger ukendt-moedetilbud ukendt-booking ukendt-fejlkode ulovligt-ophav ugyldig-besked "
        "tid-optaget moedeform-ikke-mulig ombooking-ikke-mulig aflysning-ikke-mulig reservation-udloebet "
        "allerede-modtaget"
    )
    assert {each.value for each in Fault} == {f"urn:borgerbooking:fejl:{name}" for name in names.split()}
    assert set(FAULT_REASONS) == set(Fault)
    assert len(set(FAULT_REASONS.values())) == len(Fault)


def test_the_codes_are_those_of_the_release_note() -> None:
    """Release note 3.2: Id 2 Ingen mødetider, Id 3 Ingen mødetilbud, Id 4 Andet problem oplevet på Jobnet."""
    assert [int(code) for code in ErrorCode] == [2, 3, 4]
    assert [int(origin) for origin in Origin] == [32]


def test_forms_are_ordered_as_the_release_note_lists_them() -> None:
    """R2: personligt fremmøde, telefonisk, digitalt (release note 3.1)."""
    forms = [MeetingForm.DIGITAL, MeetingForm.IN_PERSON, MeetingForm.TELEPHONE]
    assert sorted(forms, key=lambda form: form.order) == [
        "personligtFremmoede",
        "telefonisk",
        "digitalt",
    ]


def test_every_answer_that_needs_words_has_a_danish_sentence() -> None:
    wanted = {*Reason, *ErrorCode, Status.EXPIRED, Status.UNCERTAIN}
    assert set(TEXTS_DA) == wanted
    assert len(wanted) == len(Reason) + len(ErrorCode) + 2, "no two codes may be equal as keys"
    for text in TEXTS_DA.values():
        assert text[0].isupper()
        assert text.endswith(".")
        assert len(text) <= 500
    assert TEXTS_DA[ErrorCode.OTHER] == SYSTEM_ERROR


def test_ids_in_results_are_the_offers_own() -> None:
    """The contract: MoedetilbudId must be reused in the self-booking calls that follow."""
    assert Offer.model_validate(OFFER).offer_id == UUID(OFFER_ID)
