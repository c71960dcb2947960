"""Script steps as an HTTP client sees them: for some calls, some citizens, or until cleared."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from sandbox.books import citizen_token
from sandbox.scripting import MAX_SECONDS, BadStep, Step, step_from
from sandbox.servers import Sandbox
from tests.sandbox.conftest import ANNA, BO, CUT, JOBCENTER, Plain
from tests.support import poll


@pytest.mark.parametrize(
    ("step", "status", "part"),
    [
        ({"action": "status", "status": 503}, 503, "not today"),
        ({"action": "status", "status": 404}, 404, "not today"),
        ({"action": "status", "status": 204}, 204, ""),
        ({"action": "html"}, 200, "<html>"),
        ({"action": "redirect"}, 302, ""),
        ({"action": "slow", "seconds": 0.05}, 200, "tider"),
        ({"action": "ok"}, 200, "tider"),
        ({"action": "wrong_shape"}, 200, "7"),
    ],
)
async def test_a_scripted_answer_comes_once(
    anna: Plain, step: dict[str, Any], status: int, part: str
) -> None:
    anna.system.script("times", **step)
    answer = await anna.times()
    assert answer.status == status
    assert part in str(answer.body)
    assert "tider" in (await anna.times()).body
    assert anna.system.scripts.to_json() == []


async def test_an_answer_with_a_fault_and_a_retry_after(anna: Plain) -> None:
    anna.system.script("reserve", "status", status=429, retry_after="7", fault="tid-optaget")
    answer = await anna.reserve(uuid4(), anna.wish())
    assert (answer.status, answer.fault, answer.headers["Retry-After"]) == (429, "tid-optaget", "7")
    assert answer.headers["Content-Type"].startswith("application/problem+json")


async def test_garbage_is_invalid_json(anna: Plain) -> None:
    anna.system.script("times", "garbage")
    with pytest.raises(ValueError, match="decode"):
        await anna.times()


@pytest.mark.parametrize(("action", "on_the_wire"), [("huge", 400_000), ("bomb", 2_000)])
async def test_a_body_of_any_size(
    anna: Plain, http: aiohttp.ClientSession, action: str, on_the_wire: int
) -> None:
    anna.system.script("any", action, size=400_000)
    async with http.get(f"{anna.system.base_url}/v1/BorgerBooking/Booking/{uuid4()}") as answer:
        assert len(await answer.read()) > 390_000
        assert int(answer.headers.get("Content-Length", 400_000)) <= on_the_wire


@pytest.mark.parametrize("action", ["reset", "half"])
async def test_a_cut_connection_before_the_work(anna: Plain, action: str) -> None:
    anna.system.script("create", action, citizen=citizen_token(ANNA))
    invitation = uuid4()
    await anna.reserve(invitation, anna.wish())
    with pytest.raises(CUT):
        await anna.create(invitation, anna.wish(), x_requestId="r")
    assert (await anna.find(invitation)).fault == "ukendt-booking"
    assert (await anna.create(invitation, anna.wish(), x_requestId="r")).status == 201


@pytest.mark.parametrize("action", ["reset", "half", "hang", "garbage", "status"])
async def test_a_bad_answer_after_the_work_was_done(anna: Plain, action: str) -> None:
    """The meeting is booked but the caller does not know it: a repeat of the same x-requestId gets 412."""
    anna.system.script("create", action, after_work=True, seconds=0.05)
    invitation = uuid4()
    await anna.reserve(invitation, anna.wish())
    with contextlib.suppress(*CUT, ValueError):
        assert (await anna.create(invitation, anna.wish(), x_requestId="r")).status == 500
    assert (await anna.create(invitation, anna.wish(), x_requestId="r")).status == 412
    assert (await anna.find(invitation)).status == 200
    assert [e["what"] for e in anna.system.books()["entries"]] == ["reserved", "booked"]


async def test_received_but_not_done(anna: Plain) -> None:
    anna.system.script("create", "reset", remember=True)
    invitation = uuid4()
    await anna.reserve(invitation, anna.wish())
    with pytest.raises(CUT):
        await anna.create(invitation, anna.wish(), x_requestId="r")
    assert (await anna.create(invitation, anna.wish(), x_requestId="r")).status == 412
    assert (await anna.find(invitation)).fault == "ukendt-booking"


async def test_a_hang_ends_when_released(anna: Plain) -> None:
    anna.system.script("any", "hang", times=None, seconds=MAX_SECONDS)
    hanging = asyncio.create_task(anna.reserve(uuid4(), anna.wish()))
    await poll(lambda: anna.system.journal.in_flight > 0, what="the call that hangs")
    anna.system.scripts.clear()
    anna.system.release()
    with pytest.raises(CUT):
        await hanging
    assert (await anna.times()).status == 200


async def test_a_hang_ends_when_the_client_goes(anna: Plain) -> None:
    anna.system.script("times", "hang", seconds=MAX_SECONDS)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(anna.times(), 0.2)
    await poll(lambda: anna.system.journal.in_flight == 0, what="the end of the call")


async def test_another_citizen_books_the_time_first(anna: Plain) -> None:
    anna.system.script("reserve", "snatch")
    assert (await anna.reserve(uuid4(), anna.wish())).fault == "tid-optaget"
    assert anna.system.books()["disagreements"] == []


async def test_a_step_for_one_citizen_leaves_the_others_alone(anna: Plain, bo: Plain) -> None:
    anna.system.script("times", "status", citizen=citizen_token(BO), times=None, label="bo")
    assert (await anna.times()).status == 200
    assert [(await bo.times()).status for _ in range(3)] == [500, 500, 500]
    anna.system.scripts.clear("somebody")
    assert (await bo.times()).status == 500
    anna.system.scripts.clear("bo")
    assert (await bo.times()).status == 200


async def test_a_system_that_is_down_refuses_connections_and_comes_back(anna: Plain) -> None:
    invitation = await anna.book(anna.wish())
    port = anna.system.port
    await anna.system.down()
    with pytest.raises(aiohttp.ClientConnectorError):
        await anna.times()
    await anna.system.up()
    assert anna.system.port == port
    assert (await anna.find(invitation)).status == 200


async def test_everything_can_be_controlled_over_http(
    sandbox: Sandbox, anna: Plain, http: aiohttp.ClientSession
) -> None:
    """By the control interface of each system, and by the desk, which also answers for a system that is down."""
    control = f"{sandbox.desk_url}/{anna.system.name}/_control"
    step = {"operation": "times", "action": "status", "status": 418}
    async with http.post(f"{anna.system.base_url}/_control/script", json=[step, step]) as answer:
        assert answer.status == 200
    assert [(await anna.times()).status for _ in range(3)] == [418, 418, 200]
    async with http.post(f"{control}/script", json={"action": "explode"}) as answer:
        assert (answer.status, await answer.json()) == (400, {"error": "out of range: action"})
    seed = {"jobcenter": JOBCENTER, "kind": "samtale", "invitation": str(uuid4()), "cpr": ANNA}
    async with http.post(
        f"{control}/seed", json=seed | {"starts_at": anna.at().isoformat(), "form": "telefonisk"}
    ):
        pass
    async with http.get(f"{control}/books") as answer:
        assert [e["what"] for e in (await answer.json())["entries"]] == ["seeded"]
    async with http.get(f"{control}/calls") as answer:
        calls = await answer.json()
        assert [(c["operation"], c["status"], c["worked"]) for c in calls][-1] == ("times", 200, True)
        assert ANNA not in str(calls)
    async with http.post(f"{control}/mode", json={"mode": "down"}):
        pass
    await poll(lambda: not anna.system.is_up, what="the system to be down")
    async with http.post(f"{control}/mode", json={"mode": "up"}):
        pass
    async with http.post(f"{control}/reset") as answer:
        assert answer.status == 200
    assert anna.system.books()["entries"] == []
    async with http.get(f"{control}/breaches") as answer:
        assert await answer.json() == {"breaches": [], "count": 0}


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ("text", "object"),
        ({"operation": "fly"}, "operation"),
        ({"seconds": MAX_SECONDS + 1}, "seconds"),
        ({"size": 10**9}, "size"),
        ({"times": 0}, "times"),
        ({"fault": "vred"}, "fault"),
        ({"wings": 2}, "wings"),
        ({"seconds": "long"}, "type"),
    ],
)
def test_an_invalid_step_is_refused_with_the_name_of_its_field(raw: Any, named: str) -> None:
    with pytest.raises(BadStep, match=named):
        step_from(raw)


async def test_steps_are_bounded(anna: Plain) -> None:
    anna.system.scripts._steps = [Step()] * 10_000
    with pytest.raises(BadStep):
        anna.system.script("any", "ok")
