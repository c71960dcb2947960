"""What a running broker writes down for the console: its counts minute by minute, what it sees of itself, how a lane
changed; and that a stop writes the last counts.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from scripts.postgres import PostgresServer
from scripts.rabbitmq import RabbitServer
from tests.functional.conftest import prepared_broker
from tests.functional.running_broker import Frontend, RunningBroker, booking, layout, request
from tests.support import poll

pytestmark = [pytest.mark.timeout(180)]
# Without a pause to speak of, a lane parks and opens again while a test waits.
QUICK = {
    "JOBNET_BROKER__REPORTS__PARK_AFTER_FAILURES": "1",
    "JOBNET_BROKER__REPORTS__PARK_FIRST_SECONDS": "0.5",
    "JOBNET_BROKER__REPORTS__PARK_MOST_SECONDS": "1",
}


@pytest_asyncio.fixture
async def broker(
    rabbit: RabbitServer, postgres: PostgresServer, tmp_path: Path
) -> AsyncIterator[RunningBroker]:
    async with prepared_broker(rabbit, postgres, tmp_path, layout()) as broker:
        yield broker


async def printed_json(broker: RunningBroker, *words: str) -> Any:
    return json.loads((await broker.call(*words, "--json"))[1])


async def sums(broker: RunningBroker) -> dict[tuple[str, str], int]:
    rows = await broker.rows("SELECT what, label, sum(count)::bigint AS count FROM flow GROUP BY 1, 2")
    return {(row["what"], row["label"]): row["count"] for row in rows}


async def test_what_was_carried_is_in_the_ledger_when_the_broker_has_stopped(broker: RunningBroker) -> None:
    broker.sandbox.booking_systems["system-1"].script("reserve", "status", status=400, times=1)
    process = await broker.start()
    async with Frontend(broker.amqp_url) as frontend:
        failed = await frontend.ask("booking.book.v1", booking(broker, 1))
        booked = await frontend.ask("booking.book.v1", booking(broker, 2))
        await frontend.ask("query.offers.v1", request(3, kontaktgruppe="1"))
        assert (failed["status"], booked["status"]) == ("failed", "done")

        async def delivered() -> bool:
            return bool(await broker.rows("SELECT FROM reports WHERE state = 'delivered'"))

        await poll(delivered, what="the report's delivery")
    assert await process.stop() == 0
    assert await sums(broker) == {
        ("request", "booking.book.v1"): 2,
        ("request", "query.offers.v1"): 1,
        ("answer", "failed"): 1,
        ("answer", "done"): 2,
        ("created", "supplier-1"): 1,
        ("delivered", "supplier-1"): 1,
    }


async def test_an_overview_of_a_running_broker_is_well(broker: RunningBroker) -> None:
    await broker.start()

    async def well() -> Any:
        code, out = (await broker.call("overview", "--json"))[:2]
        return json.loads(out) if code == 0 and not json.loads(out)["problems"] else None

    seen = await poll(well, timeout=40, what="an overview without problems")
    [worker] = seen["workers"]
    assert (worker["ready"], worker["problem"]) == (True, None)
    assert worker["expected"] == worker["consuming"] > 0
    assert seen["look"]["figures"]["gaps"] == 0


async def test_a_lane_that_parked_and_opened_again_remembers_why(broker: RunningBroker) -> None:
    broker.sandbox.booking_systems["system-1"].script("reserve", "status", status=400, times=1)
    broker.sandbox.suppliers["supplier-1"].script("report", "status", status=500, times=1)
    await broker.start(changes=QUICK)
    async with Frontend(broker.amqp_url) as frontend:
        await frontend.ask("booking.book.v1", booking(broker, 1))

        async def opened() -> Any:
            changes = await broker.rows("SELECT before, state, reason FROM lane_changes ORDER BY id")
            return changes if changes and changes[-1]["state"] == "open" else None

        changes = await poll(opened, timeout=60, what="the lane to open again")
    assert [change["state"] for change in changes] == ["parked", "probing", "open"]
    assert "status 500" in changes[0]["reason"]
    story = await printed_json(broker, "suppliers", "show", "supplier-1")
    assert [attempt["verdict"] for attempt in story["attempts"]] == ["delivered", "later"]
    assert story["attempts"][0]["probe"] is True
    assert story["figures"]["attempts"] == 2
