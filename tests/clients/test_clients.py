"""Planner and booking system, call by call (docs/contract.md#calls), and a reload of the directory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from broker.clients import Clients, Systems
from broker.clients.booking import BookingSystem
from broker.clients.planner import Planner
from broker.errors import ContractBroken, Misconfigured, Refused, Unknown
from config.directory import Directory
from config.settings import build
from schemas.codes import MeetingForm, Reason
from schemas.external import Wish
from tests.clients.support import (
    BOOKING,
    INVITATION,
    OFFER,
    Action,
    End,
    RawServer,
    caller,
    fault,
    http,
    system,
)
from tests.support import poll

pytestmark = pytest.mark.integration

WISH = Wish(
    offer_id=OFFER,
    starts_at=datetime(2031, 3, 3, 8, 0, tzinfo=UTC),
    form=MeetingForm.TELEPHONE,
    caseworker_id="sb-1",
)
OFFERS: dict[str, Any] = {
    "moedetilbud": [
        {
            "moedetilbudId": str(OFFER),
            "samtaletype": 7,
            "moedeGruppeType": 2,
            "moedeformer": ["telefonisk"],
            "nyt": 1,
        }
    ]
}
TIMES: dict[str, Any] = {
    "tider": [
        {name: BOOKING[name] for name in ("starttidspunkt", "sluttidspunkt", "sagsbehandler")}
        | {"moedeformer": ["telefonisk", "digitalt"]}
    ]
}
ROOT = "/v1/BorgerBooking"


@asynccontextmanager
async def booking(*script: Action) -> AsyncIterator[tuple[BookingSystem, RawServer]]:
    async with RawServer(*script) as server, system(server.url) as to:
        yield BookingSystem(to), server


async def test_offers_are_asked_of_the_planner_by_contact_group() -> None:
    async with (
        RawServer(http(200, OFFERS), http(200, {"moedetilbud": []})) as server,
        system(server.url) as to,
    ):
        planner = Planner(to)
        (offer,) = await planner.offers(caller(), "7.2", immediate=True)
        assert await planner.offers(caller(), "1", immediate=False) == ()
    assert (planner.name, offer.offer_id, offer.forms) == ("nordby", OFFER, (MeetingForm.TELEPHONE,))
    assert [(request.method, request.target) for request in server.requests] == [
        ("GET", f"{ROOT}/Moedetilbud?kontaktgruppe=7.2&straksbooking=true"),
        ("GET", f"{ROOT}/Moedetilbud?kontaktgruppe=1&straksbooking=false"),
    ]


async def test_times_are_asked_of_the_booking_system_with_their_filters() -> None:
    async with booking(http(200, TIMES), http(200, {"tider": []})) as (client, server):
        start = datetime.fromisoformat("2031-03-03T09:00:00+01:00")
        (time,) = await client.times(caller(), OFFER, from_at=start, to_at=start, caseworker_id="a/b")
        assert await client.times(caller(), OFFER) == ()
    assert time.caseworker.id == "sb-1"
    stamp = "2031-03-03T09%3A00%3A00%2B01%3A00"
    assert [request.target for request in server.requests] == [
        f"{ROOT}/Moedetilbud/{OFFER}/Tider?fra={stamp}&til={stamp}&sagsbehandlerId=a%2Fb",
        f"{ROOT}/Moedetilbud/{OFFER}/Tider",
    ]


async def test_a_booking_is_absent_only_with_the_fault_for_it() -> None:
    script = (http(200, BOOKING), fault(404, "ukendt-booking"), http(404), fault(404, "ukendt-borger"))
    async with booking(*script) as (client, server):
        found = await client.find(caller(), INVITATION)
        assert found is not None
        assert found.invitation_id == INVITATION
        assert await client.find(caller(), INVITATION) is None
        with pytest.raises(Misconfigured):
            await client.find(caller(), INVITATION)
        with pytest.raises(Refused) as refused:
            await client.find(caller(), INVITATION)
    assert refused.value.reason is Reason.UNKNOWN_CITIZEN
    assert {(r.method, r.target, r.body) for r in server.requests} == {
        ("GET", f"{ROOT}/Booking/{INVITATION}", b"")
    }


async def test_another_booking_than_the_one_asked_for_breaks_the_contract() -> None:
    other = BOOKING | {"indkaldelseId": str(uuid4())}
    async with booking(http(200, other), http(201, other), http(200, other)) as (client, _):
        with pytest.raises(ContractBroken):
            await client.find(caller(), INVITATION)
        with pytest.raises(Unknown):
            await client.create(caller(), INVITATION, WISH)
        with pytest.raises(Unknown):
            await client.accept(caller(), INVITATION)


async def test_reserve_and_create_carry_the_wish() -> None:
    until_then = http(200, {"reserveretTil": "2031-03-03T09:05:00+01:00"})
    async with booking(until_then, http(201, BOOKING)) as (client, server):
        reservation = await client.reserve(caller(), INVITATION, WISH)
        created = await client.create(caller(), INVITATION, WISH)
    assert reservation is not None
    assert created.form is MeetingForm.TELEPHONE
    reserve, create = server.requests
    assert (reserve.method, reserve.target) == ("POST", f"{ROOT}/Booking/{INVITATION}/action/reserver")
    assert (create.method, create.target) == ("POST", f"{ROOT}/Booking/{INVITATION}")
    assert json.loads(reserve.body) == json.loads(create.body) == json.loads(WISH.to_json())
    assert reserve.x_request_id != create.x_request_id


async def test_a_reserve_that_was_received_but_not_answered_returns_none() -> None:
    async with booking(End.CLOSE, fault(412, "allerede-modtaget")) as (client, server):
        assert await client.reserve(caller(), INVITATION, WISH) is None
    first, second = server.requests
    assert first.x_request_id == second.x_request_id


async def test_accept_and_cancel_have_no_body() -> None:
    async with booking(http(200, BOOKING | {"accepteret": True}), http(204)) as (client, server):
        assert (await client.accept(caller(), INVITATION)).accepted
        await client.cancel(caller(), INVITATION)
    assert [(r.method, r.target, r.body) for r in server.requests] == [
        ("POST", f"{ROOT}/Booking/{INVITATION}/action/accepter", b""),
        ("DELETE", f"{ROOT}/Booking/{INVITATION}", b""),
    ]


async def test_a_cancel_that_says_200_is_unknown() -> None:
    async with booking(http(200, BOOKING)) as (client, _):
        with pytest.raises(Unknown):
            await client.cancel(caller(), INVITATION)


def directory(planners: dict[str, str], bookings: dict[str, str]) -> Directory:
    def described(urls: dict[str, str]) -> dict[str, Any]:
        return {name: {"base_url": url, "allow_http": True} for name, url in urls.items()}

    return Directory.model_validate(
        {
            "planners": described(planners),
            "booking_systems": described(bookings),
            "suppliers": {"s": {"name": "Supplier"}},
            "jobcenters": {
                "08510": {
                    "name": "A",
                    "planner": next(iter(planners)),
                    "booking_system": next(iter(bookings)),
                    "supplier": "s",
                }
            },
        }
    )


SETTINGS = build({"rabbitmq": {"url": "amqp://x:x@127.0.0.1/"}, "http": {"quiet_ms": 0}})


async def find(clients: Clients) -> bool:
    return await clients.booking.find(caller(), INVITATION) is not None


async def test_the_same_name_may_be_a_planner_and_a_booking_system() -> None:
    async with (
        RawServer(http(200, OFFERS)) as one,
        RawServer(http(200, BOOKING)) as two,
        Systems(SETTINGS, directory({"a": one.url}, {"a": two.url})) as systems,
    ):
        clients = systems.clients("a", "a")
        assert len(await clients.planner.offers(caller(), "1", immediate=False)) == 1
        assert await find(clients)
        assert clients.booking.absence_proves_after_seconds == 600
        with pytest.raises(Misconfigured):
            systems.clients("a", "gone")


async def test_a_reload_keeps_what_is_unchanged_and_cuts_no_call_in_flight() -> None:
    async with (
        RawServer(default=http(200, BOOKING)) as kept,
        RawServer(default=http(200, BOOKING)) as moved_from,
        RawServer(default=http(200, BOOKING)) as moved_to,
        Systems(
            SETTINGS, directory({"p": "http://127.0.0.1:9"}, {"kept": kept.url, "moved": moved_from.url})
        ) as systems,
    ):
        old = {name: BookingSystem(systems._bookings[name]) for name in ("kept", "moved")}
        for client in old.values():
            await client.find(caller(), INVITATION)
        moved_from.script.append(End.HANG)
        in_flight = asyncio.create_task(old["moved"].find(caller(2), INVITATION))
        await poll(lambda: len(moved_from.requests) == 2, what="both requests")
        retired = systems._bookings["moved"]

        await systems.replace(
            directory({"p": "http://127.0.0.1:9"}, {"kept": kept.url, "moved": moved_to.url})
        )

        assert systems._bookings["kept"].name == "kept"
        await BookingSystem(systems._bookings["kept"]).find(caller(), INVITATION)
        await BookingSystem(systems._bookings["moved"]).find(caller(), INVITATION)
        assert (kept.connections, len(moved_to.requests)) == (1, 1)
        assert not retired.closed
        in_flight.cancel()
        await asyncio.gather(in_flight, return_exceptions=True)
        assert retired.closed
        # A client returned before the reload still works, and its system closes after the call.
        assert await old["moved"].find(caller(), INVITATION) is not None
        assert retired.closed
        assert len(moved_from.requests) == 3
