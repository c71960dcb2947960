"""Every call is checked against the contract, and each breach is recorded without a CPR number."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from sandbox.audit import Entry, disagreements
from sandbox.books import citizen_token
from sandbox.journal import REMEMBERED_FOR, RequestIds
from sandbox.servers import Sandbox
from sandbox.system_layout import DIGITAL, GROUP_WITHOUT_OFFERS, THREE, offer_id
from tests.sandbox.conftest import ANNA, BO, JOBCENTER, Plain


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"x_civilregistrationIdentifier": "0101364"}, "x-civilregistrationIdentifier"),
        ({"x_civilregistrationIdentifier": "6101364001"}, "x-civilregistrationIdentifier"),
        ({"x_requestId": "x" * 47}, "x-requestId"),
        ({"x_requestId": ""}, "x-requestId"),
        ({"x_activeOrganisation": "9000"}, "x-activeOrganisation"),
        ({"x_activeOrganisation": "12345"}, "x-activeOrganisation"),
        ({"traceparent": "00-zz"}, "traceparent"),
    ],
)
async def test_a_bad_header_is_a_breach(anna: Plain, headers: dict[str, str], named: str) -> None:
    answer = await anna.find(uuid4(), **headers)
    assert (answer.status, answer.fault) == (400, "ugyldig-besked")
    assert len(anna.system.breaches) == 1
    assert named in anna.system.breaches[0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"starttidspunkt": "2026-11-24T10:00:00"}, "starttidspunkt"),
        ({"starttidspunkt": None}, "starttidspunkt"),
        ({"moedeform": "brev"}, "moedeform"),
        ({"moedetilbudId": "1"}, "moedetilbudId"),
        ({"sagsbehandlerId": ""}, "sagsbehandlerId"),
        ({"sagsbehandlerId": None}, "sagsbehandlerId"),
        ({"cpr": ANNA}, "cpr"),
    ],
)
async def test_a_bad_body_is_a_breach(anna: Plain, change: dict[str, Any], named: str) -> None:
    assert (await anna.reserve(uuid4(), anna.wish() | change)).status == 400
    assert named in anna.system.breaches[0]
    assert ANNA not in str(anna.system.breaches)


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("GET", "/v1/BorgerBooking/Booking/17", None, "path invitation"),
        ("GET", f"/v1/BorgerBooking/Booking/{uuid4()}?x={ANNA}", None, "CPR number is in the address"),
        ("DELETE", f"/v1/BorgerBooking/Booking/{uuid4()}", {"a": 1}, "a body where"),
        ("POST", f"/v1/BorgerBooking/Booking/{uuid4()}", [1], "not a JSON object"),
        (
            "GET",
            f"/v1/BorgerBooking/Moedetilbud/{offer_id(JOBCENTER, 'faa')}/Tider?fra=i-morgen",
            None,
            "fra",
        ),
        ("GET", f"/v1/BorgerBooking/Moedetilbud/{offer_id(JOBCENTER, 'faa')}/Tider?side=2", None, "side"),
    ],
    ids=["path", "personal", "body", "shape", "instant", "query"],
)
async def test_a_bad_address_is_a_breach(anna: Plain, method: str, path: str, body: Any, named: str) -> None:
    assert (await anna.call(method, path, body)).status == 400
    assert any(named in breach for breach in anna.system.breaches)


async def test_a_followed_redirect_is_a_breach(anna: Plain, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{anna.system.base_url}/_control/followed"):
        assert anna.system.breaches == ["a redirect was followed"]


async def test_offers_depend_on_contact_group_and_immediacy(sandbox: Sandbox, anna: Plain) -> None:
    planner: Any = sandbox.planner_of(JOBCENTER)
    asked = replace(anna, system=planner)
    path = "/v1/BorgerBooking/Moedetilbud?kontaktgruppe="
    offers = (await asked.call("GET", path + "2")).body["moedetilbud"]
    assert str(offer_id(JOBCENTER, "samtale")) in [o["moedetilbudId"] for o in offers]
    assert set(offers[0]["moedeformer"]) == set(THREE)
    immediate = (await asked.call("GET", path + "2&straksbooking=true")).body["moedetilbud"]
    assert immediate[0]["moedetilbudId"] == str(offer_id(JOBCENTER, "straks"))
    assert (await asked.call("GET", path + GROUP_WITHOUT_OFFERS)).body == {"moedetilbud": []}
    assert (await asked.call("GET", path.split("?")[0])).status == 400
    assert planner.breaches == ["offers: query kontaktgruppe is missing"]


def test_a_request_id_is_forgotten_after_seven_days() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    ids = RequestIds()
    ids.remember("a", now)
    assert ids.seen("a", now + REMEMBERED_FOR - timedelta(seconds=1))
    assert not ids.seen("a", now + REMEMBERED_FOR)


def entry(
    what: str = "booked", *, who: str = ANNA, invitation: int = 1, worker: str = "w", hour: int = 9
) -> Entry:
    at = datetime(2030, 1, 1, hour, tzinfo=UTC)
    citizen = citizen_token(who)
    ids = offer_id(JOBCENTER, f"i{invitation}"), citizen, offer_id(JOBCENTER, "samtale")
    return Entry(what, *ids, worker, at, DIGITAL, "x", at)


@pytest.mark.parametrize(
    ("entries", "count"),
    [
        ([entry(), entry(invitation=2, who=BO, worker="v")], 0),
        ([entry(), entry(invitation=2, hour=10)], 0),
        ([entry(), entry("cancelled"), entry(invitation=2)], 0),
        ([entry(), entry("moved", hour=10), entry(invitation=2, who=BO)], 0),
        ([entry(), entry(invitation=2, who=BO)], 1),
        ([entry(), entry(invitation=2, worker="v")], 1),
        ([entry(), entry(hour=10)], 1),
        ([entry(), entry("moved", hour=10), entry("moved", hour=10)], 1),
    ],
    ids=["two", "later", "again", "freed", "same-slot", "same-wish", "same-invitation", "same-move"],
)
def test_a_double_booking_is_found_in_the_log(entries: list[Entry], count: int) -> None:
    assert len(disagreements(entries)) == count
