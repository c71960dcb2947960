"""The stand-in books, moves, accepts and cancels meetings; every refusal is a fault of docs/contract.md#faults."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import aiohttp
import pytest

from sandbox.servers import Sandbox
from sandbox.system_layout import default_layout
from tests.sandbox.conftest import ANNA, JOBCENTER, Plain, move


async def test_a_reserved_time_can_be_booked_and_is_then_taken(anna: Plain, bo: Plain) -> None:
    """The calls of a booking: times, reserve, create."""
    before = len((await anna.times()).body["tider"])
    invitation = await anna.book(anna.wish())
    found = (await anna.find(invitation)).body
    assert found["indkaldelseId"] == str(invitation)
    assert found["moedeform"] == "personligtFremmoede"
    assert found["kanOmbookes"]
    assert "ombookingsfrist" in found
    assert len((await anna.times()).body["tider"]) == before - 1
    assert (await bo.reserve(uuid4(), bo.wish())).fault == "tid-optaget"
    assert (await bo.find(invitation)).fault == "ukendt-booking"
    assert anna.system.breaches == []
    assert anna.system.books()["disagreements"] == []


async def test_creating_without_a_reservation_is_refused(anna: Plain, bo: Plain) -> None:
    assert (await anna.create(uuid4(), anna.wish())).fault == "reservation-udloebet"
    await bo.book(bo.wish())
    assert (await anna.create(uuid4(), anna.wish())).fault == "tid-optaget"


async def test_a_reservation_is_for_its_own_invitation_and_time_only(anna: Plain) -> None:
    assert (await anna.reserve(uuid4(), anna.wish())).status == 200
    assert (await anna.create(uuid4(), anna.wish())).fault == "reservation-udloebet"


async def test_a_reservation_runs_out(http: aiohttp.ClientSession) -> None:
    async with Sandbox(replace(default_layout(), reservation_seconds=0.0)) as sandbox:
        anna = Plain(http, sandbox.booking_system_of(JOBCENTER))
        invitation = uuid4()
        assert (await anna.reserve(invitation, anna.wish())).status == 200
        assert (await anna.create(invitation, anna.wish())).fault == "reservation-udloebet"
        bo = replace(anna, cpr="0202354002")
        assert (await bo.reserve(uuid4(), bo.wish())).status == 200


async def test_a_form_that_the_time_does_not_have_is_refused(anna: Plain) -> None:
    assert (await anna.reserve(uuid4(), anna.wish(2, "digitalt"))).fault == "moedeform-ikke-mulig"


async def test_a_meeting_moves_and_frees_its_old_time(anna: Plain, bo: Plain) -> None:
    invitation = await anna.book(anna.wish(0))
    assert (await anna.reserve(invitation, move(anna.wish(1)))).status == 200
    moved = await anna.create(invitation, move(anna.wish(1)))
    assert moved.status == 201
    assert moved.body["starttidspunkt"] == anna.at(1).isoformat()
    await bo.book(bo.wish(0))
    changes = [entry["what"] for entry in anna.system.books()["entries"]]
    assert changes == ["reserved", "booked", "reserved", "moved", "reserved", "booked"]
    assert anna.system.books()["disagreements"] == []


async def test_a_meeting_that_may_not_be_moved_or_cancelled_stays(anna: Plain) -> None:
    invitation = uuid4()
    seed = {"jobcenter": JOBCENTER, "kind": "samtale", "invitation": str(invitation), "cpr": ANNA}
    seed |= {"starts_at": anna.at().isoformat(), "form": "telefonisk"}
    anna.system.seed(
        seed | {"can_rebook": False, "cancel_by": "2020-01-01T00:00:00+00:00", "accepted": False}
    )
    found = (await anna.find(invitation)).body
    assert (found["kanOmbookes"], found["accepteret"], "ombookingsfrist" in found) == (False, False, False)
    assert (await anna.reserve(invitation, move(anna.wish(1)))).fault == "ombooking-ikke-mulig"
    assert (await anna.cancel(invitation)).fault == "aflysning-ikke-mulig"
    assert (await anna.find(invitation)).status == 200


async def test_a_meeting_is_accepted_and_then_cancelled(anna: Plain) -> None:
    invitation = uuid4()
    seed = {"jobcenter": JOBCENTER, "kind": "samtale", "invitation": str(invitation), "cpr": ANNA}
    anna.system.seed(seed | {"starts_at": anna.at().isoformat(), "form": "telefonisk", "accepted": False})
    assert (await anna.accept(invitation)).body["accepteret"] is True
    assert (await anna.cancel(invitation)).status == 204
    assert (await anna.cancel(invitation)).fault == "ukendt-booking"
    assert (await anna.find(invitation)).fault == "ukendt-booking"
    assert [e["what"] for e in anna.system.books()["entries"]] == ["seeded", "accepted", "cancelled"]


async def test_times_can_be_narrowed_by_start_and_caseworker(anna: Plain) -> None:
    wanted = anna.at(3)
    query = f"?fra={wanted.isoformat()}&til={anna.at(4).isoformat()}&sagsbehandlerId={JOBCENTER}-samtale-2"
    found = (await anna.times(query=query.replace("+", "%2B"))).body["tider"]
    assert [t["starttidspunkt"] for t in found] == [wanted.isoformat()]
    assert found[0]["sagsbehandler"] == {"id": f"{JOBCENTER}-samtale-2", "navn": "Christian Holm"}


async def test_there_are_ten_times_with_three_forms(anna: Plain) -> None:
    """Ten times of three forms make 30 rows (R2)."""
    found = (await anna.times("tre-former")).body["tider"][:10]
    assert [len(t["moedeformer"]) for t in found] == [3] * 10


@pytest.mark.parametrize("kind", ["nowhere", "straks-elsewhere"])
async def test_an_unknown_offer_is_refused(anna: Plain, kind: str) -> None:
    assert (await anna.times(kind)).fault == "ukendt-moedetilbud"


async def test_a_repeated_request_id_gives_412_and_nothing_is_done(anna: Plain) -> None:
    invitation = uuid4()
    assert (await anna.reserve(invitation, anna.wish(), x_requestId="one")).status == 200
    assert (await anna.create(invitation, anna.wish(), x_requestId="one")).status == 412
    assert (await anna.find(invitation)).status == 404
    assert (await anna.create(invitation, anna.wish(), x_requestId="two")).status == 201
    assert (await anna.find(invitation, x_requestId="two")).status == 412
