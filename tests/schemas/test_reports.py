"""Failure reports: the citizen's text, and the body for the supplier in both formats (docs/contract.md#fejlmelding)."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.answers import Answer, ReceiptResult
from schemas.codes import ERROR_TEXT_DA, TEXTS_DA, ErrorCode, Reason, ReportKind
from schemas.failure_reports import CONTRACT_BODY, WEBHOOK_BODY, LaneMessage, Report
from schemas.generate import schema_of
from schemas.outcome_events import Outcome, OutcomeEvent
from schemas.personal import Cpr
from schemas.requests import CitizenReport
from schemas.wire import InvalidMessage
from tests.schemas.checker import accepts
from tests.schemas.samples import (
    CPR,
    FAILED_ID,
    INVITATION_ID,
    NOW,
    OFFER_ID,
    REQUEST_ID,
    SAMPLES,
    body,
    problems,
    request,
)

TYPE = "report.citizen.v1"
OWN_WORDS = "Skærmen blev rød"


def citizen_report(**changes: Any) -> CitizenReport:
    message = request(TYPE, **changes)
    assert isinstance(message, CitizenReport)
    return message


def report(**changes: Any) -> Report:
    given = {
        "report_id": UUID(REQUEST_ID),
        "kind": ReportKind.CITIZEN,
        "cpr": Cpr(CPR),
        "offer_id": UUID(OFFER_ID),
        "invitation_id": UUID(INVITATION_ID),
        "error_code": ErrorCode.OTHER,
        "error_text": OWN_WORDS,
        "occurred_at": NOW,
        "request_id": UUID(FAILED_ID),
        "type": "booking.book.v1",
        "jobcenter_code": "10100",
        "supplier": "havblik",
        "count": 3,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    return Report(**given | changes)


CONTRACT = {
    "moedetilbudId": OFFER_ID,
    "indkaldelseId": INVITATION_ID,
    "fejlkode": 4,
    "fejltekst": OWN_WORDS,
    "fejlOphav": {"id": 32, "navn": "Jobnet"},
    "fejlTidspunkt": "2026-03-02T13:00:00+01:00",
}
WEBHOOK = {
    **CONTRACT,
    "cpr": CPR,
    "reportId": REQUEST_ID,
    "kind": "citizen",
    "jobcenterkode": "10100",
    "requestId": FAILED_ID,
    "requestType": "booking.book.v1",
    "antal": 3,
}


# The citizen's text.


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x", "x"),
        ("x" * 500, "x" * 500),
        ("\U0001f600" * 500, "\U0001f600" * 500),
        ("e\u0301" * 500, "é" * 500),
        ("a\r\nb\rc\n\r\nd", "a\nb\nc\n\nd"),
        ("\r\n" * 250 + "x" * 250, "\n" * 250 + "x" * 250),
        (" a ", " a "),
        ("a\u2028b", "a\u2028b"),
    ],
    ids=["one", "500", "500 emoji", "500 after NFC", "line breaks", "CR LF is one", "ends stay", "U+2028"],
)
def test_a_text_of_up_to_500_characters_is_kept_in_nfc_with_plain_line_breaks(text: str, kept: str) -> None:
    """R5: 1 to 500 characters, counted as Unicode code points after NFC."""
    assert citizen_report(fejltekst=text).error_text == kept


def test_a_text_that_nfc_makes_longer_is_counted_as_it_becomes() -> None:
    """U+FB2C has no composed form: NFC writes it as three code points."""
    assert problems(TYPE, body({**SAMPLES[TYPE], "fejltekst": "\ufb2c" * 167})) == {
        "fejltekst": "is 501 characters long; at most 500 are allowed"
    }


def test_half_a_surrogate_pair_is_refused_on_the_wire_and_inside() -> None:
    raw = body({**SAMPLES[TYPE], "fejltekst": "X"}).replace(b'"X"', b'"a\\ud83d"')
    assert problems(TYPE, raw) == {"fejltekst": "must not hold U+0000 or half a surrogate pair"}
    with pytest.raises(ValueError, match="half a surrogate pair"):
        report(error_text="a\ud83d")


@given(st.text(max_size=600))
def test_any_text_is_kept_whole_or_refused_and_a_kept_one_does_not_change_again(text: str) -> None:
    expected = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    clean = not any(unicodedata.category(each) == "Cc" and each != "\n" for each in expected)
    if clean and expected.strip() and len(expected) <= 500:
        kept = citizen_report(fejltekst=text).error_text
        assert kept == expected == citizen_report(fejltekst=kept).error_text
    else:
        assert set(problems(TYPE, body({**SAMPLES[TYPE], "fejltekst": text}))) == {"fejltekst"}


def test_no_times_does_not_exist_for_straksbooking() -> None:
    """R4: code 2 does not exist for straksbooking; no times is code 4 there."""
    wrong = {**SAMPLES[TYPE], "straksbooking": True, "fejlkode": 2}
    assert problems(TYPE, body(wrong)) == {
        "fejlkode": "must not be 2 (ingen mødetider) for straksbooking; 4 stands for it there"
    }
    for code in (3, 4):
        assert citizen_report(straksbooking=True, fejlkode=code).error_code == code
    assert citizen_report(straksbooking=..., fejlkode=2).error_code is ErrorCode.NO_TIMES


def test_a_report_needs_no_ids_and_never_expires() -> None:
    """Both ids are optional in the contract. A citizen's report does not expire."""
    bare = citizen_report(failedRequestId=..., moedetilbudId=None, indkaldelseId=...)
    assert (bare.failed_request_id, bare.offer_id, bare.invitation_id) == (None, None, None)
    assert bare.EXPIRES is False
    assert request("booking.book.v1").EXPIRES is True


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"fejltekst": "Siden gik i sta\u030a,\r\nda jeg trykkede på Book mødet."}, True),
        ({"straksbooking": ...}, True),
        ({"sentAt": "2026-03-02T12:59:00+01:00"}, True),
        ({"fejltekst": "Andet"}, False),
        ({"fejlkode": 3}, False),
        ({"failedRequestId": ...}, False),
    ],
    ids=range(6),
)
def test_the_same_report_said_differently_has_the_same_business_fields(
    changes: dict[str, Any], same: bool
) -> None:
    """R8 applies to citizens' reports too."""
    equal = citizen_report(**changes).business_fields() == citizen_report().business_fields()
    assert equal is same


def test_a_citizens_report_survives_its_own_json() -> None:
    assert CitizenReport.from_json(citizen_report().to_json()) == citizen_report()


def test_neither_the_citizen_nor_the_citizens_words_are_printed() -> None:
    for text in (repr(report()), str(report()), repr(citizen_report(fejltekst=OWN_WORDS))):
        assert CPR not in text
        assert OWN_WORDS not in text


def test_the_receipt_has_the_release_notes_words() -> None:
    """Release note 3.2: the receipt after "Indmeld"."""
    receipt = ReceiptResult(report_id=UUID(OFFER_ID), received_at=NOW)
    answer = Answer.done(citizen_report(), receipt, now=NOW)
    assert json.loads(answer.to_json())["result"] == {
        "reportId": OFFER_ID,
        "receivedAt": "2026-03-02T12:00:00Z",
        "text": (
            "Du har nu indmeldt en fejl i forbindelse med booking af et møde. Fejlbeskeden sendes direkte "
            "til leverandøren af bookingsystemet og ikke jobcentret."
        ),
    }
    assert Answer.model_validate_json(answer.to_json()) == answer


def test_who_wrote_too_much_is_told_so_in_danish() -> None:
    """R5: a longer text is refused, and the error says so."""
    with pytest.raises(InvalidMessage) as caught:
        citizen_report(fejltekst="x" * 501)
    found = caught.value.problems
    refused = Answer.refused(None, TYPE, Reason.INVALID, found, now=NOW)
    assert refused.text == ERROR_TEXT_DA
    assert "500 tegn" in ERROR_TEXT_DA
    assert Answer.refused(None, TYPE, Reason.INVALID, now=NOW).text == TEXTS_DA[Reason.INVALID]
    assert Answer.refused(None, None, Reason.INVALID, found, now=NOW).text == TEXTS_DA[Reason.INVALID]


def test_a_conflict_of_reports_does_not_speak_of_a_booking() -> None:
    text = Answer.refused(None, TYPE, Reason.CONFLICT, now=NOW).text
    assert text != TEXTS_DA[Reason.CONFLICT]
    assert text is not None
    assert "din booking" not in text


# The bodies for the supplier.


def test_the_contracts_body_has_its_fields_and_no_cpr_number() -> None:
    """The CPR number is in the header (docs/contract.md#fejlmelding)."""
    assert json.loads(report().to_contract()) == CONTRACT
    assert CPR.encode() not in report().to_contract()


def test_the_webhooks_body_has_everything_with_the_cpr_number() -> None:
    """All fields are in the body, with the CPR number (docs/contract.md#webhook)."""
    assert json.loads(report().to_webhook()) == WEBHOOK


@pytest.mark.parametrize(
    ("name", "wire", "given"),
    [
        (CONTRACT_BODY, "to_contract", {}),
        (WEBHOOK_BODY, "to_webhook", {}),
        (CONTRACT_BODY, "to_contract", {"offer_id": None, "invitation_id": None}),
        (
            WEBHOOK_BODY,
            "to_webhook",
            {"offer_id": None, "invitation_id": None, "request_id": None, "type": None},
        ),
    ],
)
def test_each_body_fits_its_schema_and_holds_nothing_the_schema_does_not_know(
    name: str, wire: str, given: dict[str, Any]
) -> None:
    schema, sent = schema_of(name), json.loads(getattr(report(**given), wire)())
    assert accepts(schema, sent)
    assert set(schema["required"]) <= set(sent) <= set(schema["properties"])
    assert None not in sent.values()


@pytest.mark.parametrize(
    ("moment", "told"),
    [
        ("2026-01-15T12:00:00+00:00", "2026-01-15T13:00:00+01:00"),
        ("2026-07-15T12:00:00+00:00", "2026-07-15T14:00:00+02:00"),
        ("2026-07-15T23:30:00+00:00", "2026-07-16T01:30:00+02:00"),
        ("2026-07-15T12:00:00-09:00", "2026-07-15T23:00:00+02:00"),
        ("2026-10-25T00:30:00+00:00", "2026-10-25T02:30:00+02:00"),
        ("2026-10-25T01:30:00+00:00", "2026-10-25T02:30:00+01:00"),
    ],
)
def test_fejltidspunkt_has_the_offset_of_copenhagen(moment: str, told: str) -> None:
    """The offset is that of Europe/Copenhagen, so the hour that occurs twice is unambiguous."""
    made = report(occurred_at=datetime.fromisoformat(moment))
    assert json.loads(made.to_contract())["fejlTidspunkt"] == told
    assert json.loads(made.to_webhook())["fejlTidspunkt"] == told
    assert Report.from_json(made.to_json()).to_webhook() == made.to_webhook()


@given(
    st.datetimes(datetime(2001, 1, 1), datetime(2998, 1, 1), timezones=st.just(UTC)),
    st.text("abc æøå\n😀", min_size=1, max_size=500).filter(str.strip),
    st.sampled_from(ErrorCode),
    st.integers(1, 10_000),
)
def test_any_report_survives_its_sealed_form(
    moment: datetime, text: str, code: ErrorCode, count: int
) -> None:
    made = report(occurred_at=moment, error_text=text, error_code=code, count=count)
    again = Report.from_json(made.to_json())
    assert again == made
    assert again.cpr == Cpr(CPR)
    assert again.occurred_at.utcoffset() in (timedelta(hours=1), timedelta(hours=2))


def test_a_sealed_form_that_cannot_be_read_says_why_without_its_values() -> None:
    with pytest.raises(InvalidMessage) as caught:
        Report.from_json(report().to_json().replace(CPR.encode(), b"9999999999"))
    assert [each.field for each in caught.value.problems] == ["cpr"]
    assert "9999999999" not in str(caught.value)
    assert caught.value.__context__ is None


def test_what_travels_on_a_lane_is_nothing_personal() -> None:
    message = LaneMessage(report_id=UUID(REQUEST_ID), number=2, supplier="havblik")
    assert json.loads(message.to_json()) == {"reportId": REQUEST_ID, "number": 2, "supplier": "havblik"}
    assert LaneMessage.from_json(message.to_json()) == message


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"reportId": 1, "number": 0}'])
def test_garbage_on_a_lane_is_an_invalid_message(raw: bytes) -> None:
    with pytest.raises(InvalidMessage):
        LaneMessage.from_json(raw)


@pytest.mark.parametrize("outcome", [Outcome.DELIVERED, Outcome.DEAD, Outcome.DISCARDED])
def test_the_end_of_a_report_goes_out_under_report_whatever_failed(outcome: Outcome) -> None:
    """`report.delivered`, `report.dead`, `report.discarded` (docs/contract.md#outcome-events)."""
    event = OutcomeEvent(
        report_id=UUID(REQUEST_ID),
        type="booking.book.v1",
        outcome=outcome,
        cause="exhausted",
        supplier="havblik",
        occurred_at=NOW,
    )
    assert event.routing_key == f"report.{outcome.value}"
    assert json.loads(event.to_json()) == {
        "reportId": REQUEST_ID,
        "type": "booking.book.v1",
        "outcome": outcome.value,
        "cause": "exhausted",
        "supplier": "havblik",
        "correctsUncertain": False,
        "occurredAt": "2026-03-02T12:00:00Z",
    }
