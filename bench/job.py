"""The job that every contestant does: names, bodies, and the three calls that a booking makes.

Standard library only, because it is imported in two virtual environments and by every contestant. No person has the
invented CPR numbers, because their birth dates are in the 2030s.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

REQUESTS, OUTCOMES = "jobnet.requests", "jobnet.outcomes"
BOOKINGS, ANSWERS, EVENTS = "jobnet.bookings", "jobnet.answers.bench", "bench.events"
REPORTS = "bench.reports"
"""The queue of the bare delivery loop. It has whole reports, while the broker's lanes have ids."""
TYPE, KEY = "booking.book.v1", "booking.book"
SYSTEMS = 20
"""Number of jobcenters (90001 … 90020), each with its own booking system."""
OFFER = "0b5c7d1e-6a40-5d3c-9d1a-1a3f60a1c001"
STARTS_AT = "2035-03-01T09:00:00+01:00"
FROM_AT, TO_AT = "2035-03-01T08:00:00+00:00", "2035-03-02T08:00:00+00:00"
CASEWORKER, FORM = "anna", "telefonisk"
ROOT = "/v1/BorgerBooking"

AMQP_URL = os.environ.get("BENCH_AMQP_URL", "")
HTTP_URL = os.environ.get("BENCH_HTTP_URL", "")
PREFETCH = int(os.environ.get("BENCH_PREFETCH", "200"))
HTTP_TIMEOUT_S = 8


def cpr_of(number: int) -> str:
    """A CPR number that no person has; distinct for numbers below 2 237 760."""
    rest, serial = divmod(number, 999)
    rest, day = divmod(rest, 28)
    year, month = divmod(rest, 12)
    return f"{day + 1:02d}{month + 1:02d}{30 + year % 7:02d}4{serial + 1:03d}"


def jobcenter_of(number: int) -> str:
    """The jobcenters in turn."""
    return f"{90001 + number % SYSTEMS}"


def request(number: int, *, padding: int = 0, sent_at: str | None = None) -> tuple[str, bytes]:
    """The id and body of request `number` of a run, each of another citizen; `padding` is in bytes."""
    request_id = str(uuid4())
    body: dict[str, Any] = {
        "requestId": request_id,
        "sentAt": sent_at or datetime.now(UTC).isoformat(),
        "cpr": cpr_of(number),
        "jobcenterkode": jobcenter_of(number),
        "kontaktgruppe": "1",
        "moedetilbudId": OFFER,
        "starttidspunkt": STARTS_AT,
        "moedeform": FORM,
        "sagsbehandlerId": CASEWORKER,
    }
    if padding:
        body["note"] = "x" * padding
    return request_id, json.dumps(body).encode()


# -- used by the contestants other than the broker ----------------------------------------------------------


def invitation_of(body: Mapping[str, Any]) -> UUID:
    return uuid5(NAMESPACE_URL, body["requestId"])


def headers(body: Mapping[str, Any]) -> dict[str, str]:
    """The headers of the contract, as the broker sends them."""
    return {
        "x-civilregistrationIdentifier": body["cpr"],
        "x-requestId": str(uuid4()),
        "x-activeOrganisation": body["jobcenterkode"],
    }


def times_url(body: Mapping[str, Any]) -> str:
    window = f"fra={quote(FROM_AT)}&til={quote(TO_AT)}"
    return f"{HTTP_URL}/s{body['jobcenterkode']}{ROOT}/Moedetilbud/{body['moedetilbudId']}/Tider?{window}"


def booking_url(body: Mapping[str, Any]) -> str:
    return f"{HTTP_URL}/s{body['jobcenterkode']}{ROOT}/Booking/{invitation_of(body)}"


def reserve_url(body: Mapping[str, Any]) -> str:
    return f"{booking_url(body)}/action/reserver"


def wish(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of reserve and create."""
    return {name: body[name] for name in ("moedetilbudId", "starttidspunkt", "moedeform", "sagsbehandlerId")}


def is_offered(body: Mapping[str, Any], times: Mapping[str, Any]) -> bool:
    return any(time["starttidspunkt"] == body["starttidspunkt"] for time in times["tider"])


def answer(body: Mapping[str, Any], booking: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "requestId": body["requestId"],
        "type": TYPE,
        "status": "done",
        "answeredAt": datetime.now(UTC).isoformat(),
        "result": {"booking": dict(booking)},
    }


def event(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "requestId": body["requestId"],
        "type": TYPE,
        "outcome": "done",
        "jobcenterkode": body["jobcenterkode"],
        "occurredAt": datetime.now(UTC).isoformat(),
    }
