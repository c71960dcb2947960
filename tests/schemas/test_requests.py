"""Every field of every type: valid values, and the sentence for each wrong one (docs/contract.md#messages)."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.codes import MeetingForm
from schemas.personal import Cpr
from schemas.requests import REQUESTS, Book, QueryTimes
from schemas.times_cursor import TimesCursor
from tests.schemas.samples import (
    CPR,
    INVITATION_ID,
    NIL,
    NOW,
    OFFER_ID,
    REQUEST_ID,
    SAMPLES,
    body,
    problems,
    read,
    request,
)

TYPES = sorted(SAMPLES)
REQUIRED = "is required"
INSTANT = "must be a date and time such as 2026-03-02T13:00:00+01:00"
OFFSET = "must carry an offset such as +01:00"
GUID = "must be a UUID such as 6f1c2a34-9b0d-4e57-8a61-0c2d3e4f5a6b"
FORM = "must be one of personligtFremmoede, telefonisk, digitalt"
CODES = "2 (ingen mødetider), 3 (ingen mødetilbud) or 4 (andet problem)"
CONTROL = "must not hold control characters other than line breaks"
TEXT_255 = "must be 1 to 255 characters"

LIKE_CPR = "must not look like a CPR number"

WRONG_INSTANTS: list[tuple[Any, str]] = [
    ("2026-03-02T13:00:00", OFFSET),
    ("2026-03-02", INSTANT),
    ("13:00", INSTANT),
    ("2026-03-02 13:00:00+01:00", INSTANT),
    ("1772452800", INSTANT),
    ("", INSTANT),
    (1772452800, INSTANT),
    (1772452800.5, INSTANT),
    (True, INSTANT),
    ({}, INSTANT),
    ("2026-02-30T13:00:00+01:00", "is not a date and time that exists"),
    ("2026-03-02T25:00:00+01:00", "is not a date and time that exists"),
    ("2026-03-02T13:00:00+25:00", "is not a date and time that exists"),
    ("0000-03-02T13:00:00+01:00", "is not a date and time that exists"),
    ("0001-01-01T00:00:00+01:00", "is outside the calendar"),
    ("9999-12-31T23:59:59-01:00", "is outside the calendar"),
    ("9999-12-31T23:59:59+01:00", "must lie between the years 2000 and 2999"),
    ("0001-01-01T00:00:00Z", "must lie between the years 2000 and 2999"),
]
WRONG_GUIDS: list[tuple[Any, str]] = [
    ("", GUID),
    ("6f1c2a349b0d4e578a610c2d3e4f5a6b", GUID),
    (f"{{{REQUEST_ID}}}", GUID),
    (f"urn:uuid:{REQUEST_ID}", GUID),
    (f"{REQUEST_ID}\n", GUID),
    (17, GUID),
    ([REQUEST_ID], GUID),
    (NIL, "must not be the nil UUID, which stands for no id"),
]
WRONG_TEXTS: list[tuple[Any, str]] = [
    ("", TEXT_255),
    ("x" * 256, TEXT_255),
    ("a\nb", "must not hold control characters"),
    (7, "must be a string"),
    (["x"], "must be a string"),
    *[
        (text, LIKE_CPR)
        for text in (
            CPR,
            "010136-4001",
            f"RID:{CPR}",
            "sag 010136 4001",
            "010136\u20134001",
            "6101364001",
            f"x{CPR}y",
        )
    ],
]
NO_FLAGS: list[Any] = ["true", "ja", 1, 0, None, []]
WRONG_FLAGS: list[tuple[Any, str]] = [(each, "must be true or false") for each in NO_FLAGS]

WRONG: dict[str, list[tuple[Any, str]]] = {
    "requestId": [(None, REQUIRED), (..., REQUIRED), *WRONG_GUIDS],
    "sentAt": [(None, REQUIRED), (..., REQUIRED), *WRONG_INSTANTS],
    "deadline": WRONG_INSTANTS,
    "cpr": [
        (None, REQUIRED),
        (..., REQUIRED),
        (int(CPR), "must be a string of ten digits"),
        ("010136-4001", "must be ten digits, without hyphen or spaces"),
        ("6101364001", "is a replacement number (day 61 to 91), which cannot be used here"),
    ],
    "jobcenterkode": [
        (None, REQUIRED),
        (..., REQUIRED),
        (10100, "must be a string of five digits"),
        ("1010", "must be five digits"),
        ("101000", "must be five digits"),
        ("1010x", "must be five digits"),
        ("10100\n", "must be five digits"),
        ("\u0661\u0660\u0661\u0660\u0660", "must be five digits"),
    ],
    "kontaktgruppe": [
        (True, "must be a string or a whole number"),
        (7.5, "must be a string or a whole number"),
        ([], "must be a string or a whole number"),
        (-1, "must be a whole number of at most 20 digits, or a string"),
        (10**20, "must be a whole number of at most 20 digits, or a string"),
        ("x" * 21, "must be 1 to 20 characters"),
        ("a\tb", "must not hold control characters"),
        (CPR, LIKE_CPR),
        (f" {CPR[:6]}-{CPR[6:]} ", LIKE_CPR),
        (1101364001, LIKE_CPR),
        (int(CPR), LIKE_CPR),  # as a number it loses its leading zero
        (CPR[1:], LIKE_CPR),
    ],
    "straksbooking": WRONG_FLAGS,
    "starttidspunkt": [(None, REQUIRED), (..., REQUIRED), *WRONG_INSTANTS],
    "moedeform": [
        (..., REQUIRED),
        (None, FORM),
        ("Telefonisk", FORM),
        ("", FORM),
        (6, FORM),
        (["telefonisk"], FORM),
    ],
    "sagsbehandlerId": WRONG_TEXTS,
    "fra": WRONG_INSTANTS,
    "til": [*WRONG_INSTANTS, ("2026-03-03T00:00:00+01:00", "must be later than fra")],
    "moedetilbudId": [(None, REQUIRED), (..., REQUIRED), *WRONG_GUIDS],
    "indkaldelseId": [(None, REQUIRED), (..., REQUIRED), *WRONG_GUIDS],
    "failedRequestId": WRONG_GUIDS,
    "fejlkode": [
        (None, REQUIRED),
        (..., REQUIRED),
        ("4", f"must be a whole number: {CODES}"),
        (4.0, f"must be a whole number: {CODES}"),
        (True, f"must be a whole number: {CODES}"),
        (1, f"must be {CODES}"),
        (0, f"must be {CODES}"),
        (5, f"must be {CODES}"),
        (10**30, f"must be {CODES}"),
    ],
    "fejltekst": [
        (None, REQUIRED),
        (..., REQUIRED),
        (17, "must be a string"),
        ("", "is empty"),
        (" \r\n\u2003\u00a0 ", "is empty"),
        ("x" * 512, "is 512 characters long; at most 500 are allowed"),
        ("\U0001f600" * 501, "is 501 characters long; at most 500 are allowed"),
        ("a\tb", CONTROL),
        ("a\x1bb", CONTROL),
        ("a\x7fb", CONTROL),
        ("a\x85b", CONTROL),
    ],
}
PAGE = "must be the naesteSide of an earlier answer"
WRONG_TIMES: list[tuple[str, Any, str]] = [
    ("moedeform", "Telefonisk", FORM),
    *[("side", page, PAGE) for page in ("", "2", "æ", "!!!!", "bnVsbA", "WzEsMl0", "W10", "x" * 2000)],
    *[
        ("side", base64.urlsafe_b64encode(text.encode()).decode().rstrip("="), PAGE)
        for text in ('["2026-03-02T12:00:00","a"]', '["0001-01-01T00:00:00Z","a"]', '["x","a"]', "[" * 400)
    ],
    ("side", 2, "must be a string"),
]
NOT_REQUIRED = {("report.citizen.v1", "moedetilbudId"), ("report.citizen.v1", "indkaldelseId")}
CASES = [
    pytest.param(type, field, value, sentence, id=f"{type} {field} {place}")
    for type, sample in sorted(SAMPLES.items())
    for field in sample
    for place, (value, sentence) in enumerate(WRONG[field])
    if sentence != REQUIRED or (type, field) not in NOT_REQUIRED
]


@pytest.mark.parametrize("type", TYPES)
def test_a_whole_message_is_read_and_comes_back_from_its_own_json(type: str) -> None:
    # When
    message = read(type, body(SAMPLES[type]), content_type="application/json")

    # Then
    assert isinstance(message, REQUESTS[type])
    assert message.type == type
    assert type.startswith(f"{message.FAMILY}.")
    assert (message.request_id, message.cpr) == (UUID(REQUEST_ID), Cpr(CPR))
    assert REQUESTS[type].from_json(message.to_json()) == message


@pytest.mark.parametrize("type", TYPES)
def test_every_field_of_the_sample_is_read(type: str) -> None:
    """A field that the models do not know would be ignored, and the tables above would test nothing."""
    assert set(SAMPLES[type]) <= REQUESTS[type].wire_names()


@pytest.mark.parametrize(("type", "field", "value", "sentence"), CASES)
def test_a_wrong_field_is_named_with_words_for_a_developer(
    type: str, field: str, value: Any, sentence: str
) -> None:
    """The sentence says what is allowed and repeats no personal value."""
    fields = {name: each for name, each in {**SAMPLES[type], field: value}.items() if each is not ...}
    assert problems(type, body(fields)) == {field: sentence}


@pytest.mark.parametrize("type", TYPES)
def test_all_wrong_fields_are_named_at_once(type: str) -> None:
    wrong: dict[str, Any] = {name: [] for name in SAMPLES[type]}
    assert set(problems(type, body(wrong))) == set(SAMPLES[type])


@pytest.mark.parametrize("type", TYPES)
def test_python_names_are_not_wire_names(type: str) -> None:
    fields = {**SAMPLES[type], "request_id": SAMPLES[type]["requestId"]}
    del fields["requestId"]
    assert problems(type, body(fields)) == {"requestId": REQUIRED}


@pytest.mark.parametrize("type", TYPES)
def test_unknown_fields_are_tolerated_and_not_kept(type: str) -> None:
    message = read(type, body({**SAMPLES[type], "nyt": {"felt": [1, None]}}))
    assert message == read(type, body(SAMPLES[type]))
    assert b"nyt" not in message.to_json()


@pytest.mark.parametrize(
    ("type", "field", "value", "sentence"),
    [
        (
            "booking.book.v1",
            "indkaldelseId",
            INVITATION_ID,
            "must be left out: this type names its offer by moedetilbudId",
        ),
        (
            "booking.immediate.v1",
            "indkaldelseId",
            "",
            "must be left out: this type names its offer by moedetilbudId",
        ),
        (
            "booking.rebook.v1",
            "moedetilbudId",
            OFFER_ID,
            "must be left out: this type names its meeting by indkaldelseId",
        ),
        (
            "booking.accept.v1",
            "moedetilbudId",
            OFFER_ID,
            "must be left out: this type names its meeting by indkaldelseId",
        ),
        (
            "booking.cancel.v1",
            "moedetilbudId",
            17,
            "must be left out: this type names its meeting by indkaldelseId",
        ),
    ],
)
def test_a_booking_names_an_offer_or_a_meeting_and_never_both(
    type: str, field: str, value: Any, sentence: str
) -> None:
    """R7: book and immediate have a moedetilbudId and no indkaldelseId; rebook, accept and cancel have an
    indkaldelseId. Null counts as absent.
    """
    assert problems(type, body({**SAMPLES[type], field: value})) == {field: sentence}
    assert read(type, body({**SAMPLES[type], field: None})) == read(type, body(SAMPLES[type]))


@pytest.mark.parametrize(
    ("value", "group"),
    [(..., None), (None, None), ("", None), ("  ", None), ("1", "1"), (7, "7"), (" 7 ", "7")],
)
def test_a_missing_contact_group_is_not_a_wrong_field(value: Any, group: str | None) -> None:
    """R1: its absence is refused with a reason of its own (`no-contact-group`), not as `invalid`."""
    message = request("booking.book.v1", kontaktgruppe=value)
    assert isinstance(message, Book)
    assert message.contact_group == group


@pytest.mark.parametrize(
    "text", ["3201364001", "0113364001", "2902374001", "01013640011", "12345678901234", "RID:1"]
)
def test_what_has_no_date_is_not_taken_for_a_cpr_number(text: str) -> None:
    message = read("booking.book.v1", body({**SAMPLES["booking.book.v1"], "sagsbehandlerId": text}))
    assert isinstance(message, Book)
    assert message.caseworker_id == text


def test_a_uuid_is_not_taken_for_a_cpr_number() -> None:
    caseworker = "6f1c2a34-9b0d-4e57-8a61-a0101364001b"
    assert read("booking.book.v1", body({**SAMPLES["booking.book.v1"], "sagsbehandlerId": caseworker}))


@pytest.mark.parametrize(
    "changes",
    [{"requestId": NIL}, {"moedetilbudId": NIL}, {"sagsbehandlerId": CPR}, {"kontaktgruppe": CPR}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_an_earlier_release_stored_is_still_read(changes: dict[str, Any]) -> None:
    """An open booking in the ledger must not become unreadable by an upgrade."""
    message = request("booking.book.v1", **changes)
    assert Book.from_json(message.to_json()) == message


@pytest.mark.parametrize(("field", "value", "sentence"), WRONG_TIMES)
def test_a_wrong_page_of_times_is_named(field: str, value: Any, sentence: str) -> None:
    assert problems("query.times.v1", body({**SAMPLES["query.times.v1"], field: value})) == {field: sentence}


def test_a_page_of_times_is_read_and_is_not_for_straksbooking() -> None:
    cursor = str(TimesCursor(NOW, "sagsbehandler-æ"))
    paged = {**SAMPLES["query.times.v1"], "moedeform": "telefonisk", "side": cursor}
    message = read("query.times.v1", body(paged))
    assert isinstance(message, QueryTimes)
    assert (message.form, message.page) == (MeetingForm.TELEPHONE, cursor)
    assert TimesCursor.read(cursor) == TimesCursor(NOW, "sagsbehandler-æ")
    left_out = "must be left out for straksbooking"
    straks = problems("query.times.v1", body({**paged, "straksbooking": True}))
    assert straks == {"moedeform": left_out, "side": left_out}


def test_optional_fields_may_be_left_out_or_null() -> None:
    bare = request(
        "query.times.v1", fra=..., til=None, sagsbehandlerId=None, straksbooking=..., deadline=None
    )
    assert isinstance(bare, QueryTimes)
    assert (bare.from_at, bare.to_at, bare.caseworker_id, bare.immediate, bare.deadline) == (
        None,
        None,
        None,
        False,
        None,
    )


def test_an_instant_keeps_its_offset() -> None:
    """A meeting at 09:30 in Denmark is sent to the booking system as 09:30+01:00."""
    message = request("booking.book.v1")
    assert isinstance(message, Book)
    assert message.starts_at.isoformat() == "2026-03-10T09:30:00+01:00"
    assert message.form is MeetingForm.TELEPHONE


@pytest.mark.parametrize(
    ("ahead", "accepted"), [(-3600.0, True), (0.0, True), (60.0, True), (60.001, False), (86400.0, False)]
)
def test_a_clock_may_be_a_minute_ahead(ahead: float, accepted: bool) -> None:
    """sentAt may be up to a minute in the future, because clocks differ (docs/contract.md#messages)."""
    # Given
    sent_at = (NOW + timedelta(seconds=ahead)).isoformat()
    raw = body({**SAMPLES["booking.cancel.v1"], "sentAt": sent_at})

    # Then
    if accepted:
        assert read("booking.cancel.v1", raw).sent_at == datetime.fromisoformat(sent_at)
    else:
        assert problems("booking.cancel.v1", raw) == {
            "sentAt": "lies in the future; check the sender's clock and offset"
        }
        assert REQUESTS["booking.cancel.v1"].from_json(raw)


@pytest.mark.parametrize(
    ("deadline", "expected"),
    [
        (None, "2026-03-02T12:00:30+00:00"),
        ("2026-03-02T13:00:20+01:00", "2026-03-02T12:00:20+00:00"),
        ("2026-03-02T13:00:31+01:00", "2026-03-02T12:00:30+00:00"),
        ("2000-01-01T00:00:00Z", "2000-01-01T00:00:00+00:00"),
        ("2999-12-31T23:59:59Z", "2026-03-02T12:00:30+00:00"),
    ],
)
def test_the_effective_deadline_is_the_earlier_one(deadline: str | None, expected: str) -> None:
    """The effective deadline is the earlier of `deadline` and `sentAt` + 30 s (docs/contract.md#messages)."""
    message = request("booking.cancel.v1", deadline=deadline)
    assert message.effective_deadline().isoformat() == expected
    assert message.effective_deadline().tzinfo is UTC
    assert message.effective_deadline(timedelta(seconds=1)) <= NOW + timedelta(seconds=1)


def test_messages_do_not_change_and_do_not_print_the_citizen() -> None:
    message = request("booking.book.v1")
    with pytest.raises(ValidationError):
        message.jobcenter_code = "20200"  # type: ignore[misc]
    assert CPR not in repr(message) + str(message) + str(message.model_dump())


SAME = [
    {"sentAt": "2026-03-02T12:59:00+01:00"},
    {"deadline": ...},
    {"starttidspunkt": "2026-03-10T08:30:00Z"},
    {"starttidspunkt": "2026-03-10T09:30:00.000+01:00"},
    {"kontaktgruppe": 1},
    {"requestId": REQUEST_ID.upper()},
    {"nyt": "felt"},
    {"indkaldelseId": None},
]
OTHER = [
    {"cpr": "0101364002"},
    {"jobcenterkode": "20200"},
    {"starttidspunkt": "2026-03-10T09:30:00Z"},
    {"kontaktgruppe": "2"},
    {"kontaktgruppe": None},
    {"moedeform": "digitalt"},
    {"sagsbehandlerId": ...},
    {"sagsbehandlerId": "RID:2"},
    {"moedetilbudId": INVITATION_ID},
    {"requestId": OFFER_ID},
]


@pytest.mark.parametrize("changes", SAME, ids=range(len(SAME)))
def test_the_same_booking_said_differently_has_the_same_business_fields(changes: dict[str, Any]) -> None:
    """R8: `sentAt`, `deadline` and transport do not count."""
    changed = request("booking.book.v1", **changes)
    assert changed.business_fields() == request("booking.book.v1").business_fields()


@pytest.mark.parametrize("changes", OTHER, ids=range(len(OTHER)))
def test_another_booking_has_other_business_fields(changes: dict[str, Any]) -> None:
    """R8: the same id with other business fields is refused as `conflict`."""
    changed = request("booking.book.v1", **changes)
    assert changed.business_fields() != request("booking.book.v1").business_fields()


def test_business_fields_keep_their_form_from_release_to_release() -> None:
    """The ledger remembers their HMAC: another form of the same fields would call every repeat a conflict.

    What is not given is not in it, so that a field added to the contract later changes nothing.
    """
    bare = request("query.times.v1", kontaktgruppe="", sagsbehandlerId=..., til=...)
    assert bare.business_fields().decode() == (
        f'{{"cpr":"{CPR}","fra":"2026-03-02T23:00:00+00:00","jobcenterkode":"10100",'
        f'"moedetilbudId":"{OFFER_ID}","requestId":"{REQUEST_ID}","type":"query.times.v1"}}'
    )


def test_the_type_is_a_business_field() -> None:
    assert request("booking.accept.v1").business_fields() != request("booking.cancel.v1").business_fields()


@given(st.permutations(list(SAMPLES["query.times.v1"].items())))
def test_the_order_of_fields_does_not_matter(items: list[tuple[str, Any]]) -> None:
    shuffled = REQUESTS["query.times.v1"].from_json(body(dict(items)))
    assert shuffled.business_fields() == request("query.times.v1").business_fields()


moments = st.datetimes(datetime(2001, 1, 1), datetime(2998, 1, 1), timezones=st.just(UTC))


@given(moments, st.integers(-1439, 1439), st.sampled_from(list(MeetingForm)), st.text("abc æøå:", min_size=1))
def test_any_right_message_survives_its_own_json(
    starts_at: datetime, minutes: int, form: MeetingForm, caseworker: str
) -> None:
    # Given

    local = starts_at.astimezone(timezone(timedelta(minutes=minutes)))
    message = request(
        "booking.book.v1", starttidspunkt=local.isoformat(), moedeform=form, sagsbehandlerId=caseworker
    )

    # Then
    assert isinstance(message, Book)
    assert message.starts_at == starts_at
    again = Book.from_json(message.to_json())
    assert again == message
    assert again.business_fields() == message.business_fields()
    in_utc = request(
        "booking.book.v1", starttidspunkt=starts_at.isoformat(), moedeform=form, sagsbehandlerId=caseworker
    )
    assert in_utc.business_fields() == message.business_fields()
