"""Responses of external systems: the contract's fields are required, others are ignored (docs/contract.md#calls)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import pytest
from pydantic import ValidationError

from schemas.codes import Fault, MeetingForm
from schemas.external import (
    MOST_OFFERS,
    Booking,
    MeetingTime,
    Offer,
    Offers,
    Problem,
    Reservation,
    Times,
    Wish,
    read_answer,
)
from schemas.wire import MOST_PROBLEMS, Wire, problems_of
from tests.schemas.samples import BOOKING, CPR, OFFER, OFFER_ID

TIME: Final[dict[str, Any]] = {
    "starttidspunkt": "2026-03-10T09:30:00+01:00",
    "sluttidspunkt": "2026-03-10T10:00:00+01:00",
    "sagsbehandler": {"id": "RID:1", "navn": "Anna Østergård"},
    "moedeformer": ["telefonisk"],
}
WHOLE: Final[list[tuple[type[Wire], dict[str, Any], set[str]]]] = [
    (Offer, OFFER, {"lokation"}),
    (Offers, {"moedetilbud": [OFFER, OFFER]}, set()),
    (MeetingTime, TIME, set()),
    (Times, {"tider": [TIME]}, set()),
    (Booking, BOOKING, {"moedetilbudId", "ombookingsfrist", "aflysningsfrist"}),
    (Reservation, {"reserveretTil": "2026-03-02T13:05:00+01:00"}, set()),
]
NAMES = [model.__name__ for model, _, _ in WHOLE]


@pytest.mark.parametrize(("model", "wire", "optional"), WHOLE, ids=NAMES)
def test_what_the_contract_says_is_read_and_written_alike(
    model: type[Wire], wire: dict[str, Any], optional: set[str]
) -> None:
    raw = json.dumps({**wire, "nyt": {"felt": 1}})
    assert json.loads(model.model_validate_json(raw).to_json()) == wire
    assert model.model_validate_json(raw) == model.model_validate(wire)


@pytest.mark.parametrize(("model", "wire", "optional"), WHOLE, ids=NAMES)
def test_what_the_contract_requires_must_be_there(
    model: type[Wire], wire: dict[str, Any], optional: set[str]
) -> None:
    for name in wire.keys() - optional:
        without = {key: value for key, value in wire.items() if key != name}
        with pytest.raises(ValidationError) as caught:
            model.model_validate(without)
        assert [(each.field, each.problem) for each in problems_of(caught.value)] == [(name, "is required")]
    for name in optional:
        assert model.model_validate({**wire, name: None})


@pytest.mark.parametrize(
    ("model", "wire", "field"),
    [
        (Offer, {**OFFER, "moedeformer": []}, "moedeformer"),
        (Offer, {**OFFER, "moedeformer": ["pigeon"]}, "moedeformer.0"),
        (Offer, {**OFFER, "samtaletype": "7"}, "samtaletype"),
        (Offer, {**OFFER, "samtaletype": True}, "samtaletype"),
        (Offers, {"moedetilbud": None}, "moedetilbud"),
        (Offers, {"moedetilbud": [OFFER, 1]}, "moedetilbud.1"),
        (Offers, {"moedetilbud": [OFFER] * (MOST_OFFERS + 1)}, "moedetilbud"),
        (MeetingTime, {**TIME, "starttidspunkt": "2026-03-10T09:30:00"}, "starttidspunkt"),
        (MeetingTime, {**TIME, "sagsbehandler": {"id": "RID:1"}}, "sagsbehandler.navn"),
        (Booking, {**BOOKING, "accepteret": "true"}, "accepteret"),
        (Booking, {**BOOKING, "ombookingsfrist": 0}, "ombookingsfrist"),
        (Booking, {**BOOKING, "indkaldelseId": "1"}, "indkaldelseId"),
    ],
    ids=range(12),
)
def test_what_breaks_the_contract_is_named(model: type[Wire], wire: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(json.dumps(wire))
    assert problems_of(caught.value)[0].field == field


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(("model", "wire", "optional"), WHOLE, ids=NAMES)
def test_an_optional_field_that_cannot_be_read_never_hides_the_answer(
    model: type[Wire], wire: dict[str, Any], optional: set[str]
) -> None:
    plain, nothing = read_answer(model, BOM + json.dumps(wire).encode())
    assert nothing == ()
    for name in optional:
        without = model.model_validate({key: value for key, value in wire.items() if key != name})
        value: Any
        for value in ("0001-01-01T00:00:00", "0001-01-01T00:00:00+01:00", 0, [], {"a": 1}, "x" * 2000, ""):
            if name == "lokation" and isinstance(value, str) and len(value) <= 1000:
                continue
            got, left_out = read_answer(model, json.dumps({**wire, name: value}).encode())
            assert (got, left_out) == (without, (name,))
    for name in wire.keys() - optional - {"tider", "moedetilbud"}:
        with pytest.raises(ValidationError):
            read_answer(model, json.dumps({**wire, name: {"a": 1}}).encode())
    assert plain


def test_one_unreadable_entry_of_a_list_hides_no_other() -> None:
    wrong = [7, None, {}, {**TIME, "starttidspunkt": "i morgen"}, {**TIME, "sagsbehandler": {"id": "RID:1"}}]
    wrong += [{**TIME, "moedeformer": ["pigeon"]}, {**TIME, "moedeformer": []}]
    got, left_out = read_answer(Times, json.dumps({"tider": [TIME, *wrong, TIME]}).encode())
    assert got == Times.model_validate({"tider": [TIME, TIME]})
    assert {name.split(".")[1] for name in left_out} >= {str(number) for number in range(1, 6)}
    offers = [{**OFFER, "lokation": 7}, OFFER, {**OFFER, "moedetilbudId": "x"}]
    found, left_out = read_answer(Offers, json.dumps({"moedetilbud": offers}).encode())
    assert [offer.location for offer in found.offers] == [None, OFFER.get("lokation")]
    assert left_out == ("moedetilbud.0.lokation", "moedetilbud.2")


def test_a_form_that_is_not_known_hides_neither_the_time_nor_its_other_forms() -> None:
    body = json.dumps({"tider": [{**TIME, "moedeformer": ["pigeon", "digitalt", "owl"]}]}).encode()
    (time,) = read_answer(Times, body)[0].times
    assert time.forms == (MeetingForm.DIGITAL,)


def test_an_answer_of_unreadable_entries_only_does_not_say_that_there_are_none() -> None:
    for wrong in ([{**TIME, "moedeformer": ["pigeon"]}], [7, 8]):
        with pytest.raises(ValidationError):
            read_answer(Times, json.dumps({"tider": wrong}).encode())
    assert read_answer(Times, b'{"tider": []}')[0].times == ()
    with pytest.raises(ValidationError):
        read_answer(Times, b"[" * 100_000)


def test_thousands_of_wrong_entries_are_not_thousands_of_problems() -> None:
    with pytest.raises(ValidationError) as caught:
        Times.model_validate({"tider": [CPR] * 5000})
    found = problems_of(caught.value)
    assert len(found) == MOST_PROBLEMS
    assert CPR not in str(found) + str(caught.value)


def test_forms_come_once_each_in_the_order_of_r2() -> None:
    """R2: personligt fremmøde, telefonisk, digitalt (release note 3.1)."""
    forms = ["digitalt", "personligtFremmoede", "digitalt", "telefonisk"]
    assert MeetingTime.model_validate({**TIME, "moedeformer": forms}).forms == tuple(MeetingForm)


@pytest.mark.parametrize(
    "unset", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00", "1899-12-30T00:00:00Z"]
)
def test_the_first_day_of_a_calendar_is_no_deadline(unset: str) -> None:
    """It is what an unset date looks like, and must not say that the deadline is over."""
    booking = Booking.model_validate({**BOOKING, "ombookingsfrist": unset, "aflysningsfrist": unset})
    assert (booking.rebook_by, booking.cancel_by) == (None, None)


def test_a_deadline_that_never_comes_is_no_broken_contract() -> None:
    """Some systems write "no deadline" as the last day of the calendar."""
    assert Booking.model_validate({**BOOKING, "ombookingsfrist": "9999-12-31T23:59:59+01:00"}).rebook_by


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_of_the_closed_list_is_known(fault: Fault) -> None:
    assert Problem.model_validate_json(json.dumps({"type": fault.value, "status": 409})).fault is fault


@pytest.mark.parametrize("wire", [{}, {"type": "about:blank"}, {"type": "urn:borgerbooking:fejl:noget-nyt"}])
def test_another_problem_type_is_no_fault(wire: dict[str, Any]) -> None:
    assert Problem.model_validate(wire).fault is None


def test_a_problems_title_is_not_printed() -> None:
    """Only codes, the status and the fault's `type` are kept, never title or detail (docs/privacy.md#logs)."""
    assert CPR not in repr(Problem.model_validate({"title": CPR, "detail": CPR}))


def test_a_wish_says_only_what_is_wished() -> None:
    """reserver and create carry moedetilbudId (book, immediate), starttidspunkt, moedeform and perhaps sagsbehandlerId
    (docs/contract.md#calls).
    """
    starts_at = datetime(2026, 3, 10, 8, 30, tzinfo=UTC)
    least = json.loads(Wish(starts_at=starts_at, form=MeetingForm.DIGITAL).to_json())
    assert least == {
        "starttidspunkt": "2026-03-10T08:30:00Z",
        "moedeform": "digitalt",
    }
    wish = Wish(offer_id=UUID(OFFER_ID), starts_at=starts_at, form=MeetingForm.DIGITAL, caseworker_id="RID:1")
    full = json.loads(wish.to_json())
    assert full["moedetilbudId"] == OFFER_ID
    assert full["sagsbehandlerId"] == "RID:1"
