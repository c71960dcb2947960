"""Complete valid messages of every type, for tests to change.

The CPR numbers have birth dates in the 2030s, so they belong to no person.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest

from schemas.answers import BookingResult, CancelledResult, OffersResult, Result, TimeRow, TimesResult
from schemas.codes import MeetingForm
from schemas.envelope import Request
from schemas.external import Booking, Caseworker, Offer
from schemas.requests import REQUESTS, read_request
from schemas.wire import InvalidMessage

CPR: Final = "0101364001"
NOW: Final = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
NIL: Final = "00000000-0000-0000-0000-000000000000"
REQUEST_ID: Final = "6f1c2a34-9b0d-4e57-8a61-0c2d3e4f5a6b"
OFFER_ID: Final = "11111111-2222-4333-8444-555555555555"
FAILED_ID: Final = "0f0f0f0f-1111-4222-8333-444455556666"
INVITATION_ID: Final = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"

ENVELOPE: Final[dict[str, Any]] = {
    "requestId": REQUEST_ID,
    "sentAt": "2026-03-02T13:00:00+01:00",
    "deadline": "2026-03-02T13:00:20+01:00",
    "cpr": CPR,
    "jobcenterkode": "10100",
}
_WISH: Final[dict[str, Any]] = {
    "kontaktgruppe": "1",
    "starttidspunkt": "2026-03-10T09:30:00+01:00",
    "moedeform": "telefonisk",
    "sagsbehandlerId": "RID:1",
}

SAMPLES: Final[dict[str, dict[str, Any]]] = {
    "query.offers.v1": {**ENVELOPE, "kontaktgruppe": 7, "straksbooking": True},
    "query.times.v1": {
        **ENVELOPE,
        "kontaktgruppe": "1",
        "moedetilbudId": OFFER_ID,
        "straksbooking": False,
        "fra": "2026-03-03T00:00:00+01:00",
        "til": "2026-03-17T00:00:00+01:00",
        "sagsbehandlerId": "RID:1",
    },
    "booking.book.v1": {**ENVELOPE, **_WISH, "moedetilbudId": OFFER_ID},
    "booking.immediate.v1": {**ENVELOPE, **_WISH, "moedetilbudId": OFFER_ID},
    "booking.rebook.v1": {**ENVELOPE, **_WISH, "indkaldelseId": INVITATION_ID},
    "booking.accept.v1": {**ENVELOPE, "indkaldelseId": INVITATION_ID},
    "booking.cancel.v1": {**ENVELOPE, "indkaldelseId": INVITATION_ID},
    "report.citizen.v1": {
        **ENVELOPE,
        "straksbooking": False,
        "fejlkode": 2,
        "fejltekst": "Siden gik i stå,\nda jeg trykkede på Book mødet.",
        "failedRequestId": FAILED_ID,
        "moedetilbudId": OFFER_ID,
        "indkaldelseId": INVITATION_ID,
    },
}


def body(fields: object) -> bytes:
    """The bytes that a frontend would send."""
    return json.dumps(fields, ensure_ascii=False).encode()


def read(type: str | None, raw: bytes, **more: Any) -> Request:
    """Read the request at `NOW`, with a large size limit."""
    return read_request(type, more.pop("content_type", None), raw, **{"now": NOW, "max_bytes": 65536, **more})


def problems(type: str | None, raw: bytes, **more: Any) -> dict[str, str]:
    """The problems of a message that must be refused, by field."""
    with pytest.raises(InvalidMessage) as caught:
        read(type, raw, **more)
    assert caught.value.__context__ is None, "the exception must not be chained to one that holds the input"
    return {each.field: each.problem for each in caught.value.problems}


def request(type: str, **changes: Any) -> Request:
    """The sample of a type with some wire fields changed; a value of `...` leaves the field out."""
    fields = {name: value for name, value in {**SAMPLES[type], **changes}.items() if value is not ...}
    return REQUESTS[type].from_json(body(fields))


OFFER: Final[dict[str, Any]] = {
    "moedetilbudId": OFFER_ID,
    "samtaletype": 7,
    "moedeGruppeType": 1,
    "moedeformer": ["personligtFremmoede", "digitalt"],
    "lokation": "Rådhuspladsen 1",
}
BOOKING: Final[dict[str, Any]] = {
    "indkaldelseId": INVITATION_ID,
    "moedetilbudId": OFFER_ID,
    "starttidspunkt": "2026-03-10T09:30:00+01:00",
    "sluttidspunkt": "2026-03-10T10:00:00+01:00",
    "moedeform": "telefonisk",
    "sagsbehandler": {"id": "RID:1", "navn": "Anna Østergård"},
    "accepteret": True,
    "kanOmbookes": True,
    "ombookingsfrist": "2026-03-09T12:00:00+01:00",
    "kanAflyses": False,
}

ANNA = Caseworker(id="RID:1", name="Anna")
ROW = TimeRow(starts_at=NOW, ends_at=NOW + timedelta(minutes=30), caseworker=ANNA, form=MeetingForm.DIGITAL)
BOOK = request("booking.book.v1")
RESULTS: list[tuple[Result, dict[str, Any]]] = [
    (OffersResult(offers=(Offer.model_validate(OFFER),)), {"moedetilbud": [OFFER]}),
    (OffersResult(offers=()), {"moedetilbud": []}),
    (
        TimesResult(rows=(ROW,)),
        {
            "tider": [
                {
                    "starttidspunkt": "2026-03-02T12:00:00Z",
                    "sluttidspunkt": "2026-03-02T12:30:00Z",
                    "sagsbehandler": {"id": "RID:1", "navn": "Anna"},
                    "moedeform": "digitalt",
                }
            ]
        },
    ),
    (BookingResult(booking=Booking.model_validate(BOOKING)), {"booking": BOOKING}),
    (
        CancelledResult(invitation_id=UUID(INVITATION_ID)),
        {"indkaldelseId": INVITATION_ID, "aflyst": True},
    ),
]
