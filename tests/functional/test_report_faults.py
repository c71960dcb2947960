"""No failure without its report, no report lost: over kills and restarts, and beside a supplier that swallows everything."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from sandbox.books import citizen_token
from schemas.ids import report_of
from scripts.postgres import PostgresNode
from scripts.rabbitmq import RabbitNode
from tests.functional.conftest import prepared_broker
from tests.functional.running_broker import Frontend, RunningBroker, booking, layout, settled
from tests.support import poll

pytestmark = [pytest.mark.timeout(300)]

BOOK = "booking.book.v1"
FAILURES = 2000
AT_A_TIME = 25


@pytest_asyncio.fixture
async def broker(
    breakable_rabbit: RabbitNode, breakable_postgres: PostgresNode, tmp_path: Path
) -> AsyncIterator[RunningBroker]:
    setting = layout(systems=4, suppliers=("contract", "webhook", "contract", "contract"))
    async with prepared_broker(breakable_rabbit, breakable_postgres, tmp_path, setting) as broker:
        for system in broker.sandbox.booking_systems.values():
            system.script("reserve", "status", status=400, times=None)
        yield broker


@pytest_asyncio.fixture
async def frontend(broker: RunningBroker) -> AsyncIterator[Frontend]:
    async with Frontend(broker.amqp_url) as frontend:
        yield frontend


async def fail_many(
    broker: RunningBroker, frontend: Frontend, count: int, harming: asyncio.Task[None]
) -> list[dict[str, Any]]:
    """Bookings that all fail with a bare 400, over the four jobcenters in turn; the last quarter after the harm."""
    sent: list[dict[str, Any]] = []
    slots = asyncio.Semaphore(AT_A_TIME)

    async def one(number: int) -> None:
        async with slots:
            if number >= count * 3 // 4:
                await asyncio.wait([harming])
            body = booking(broker, number, f"9000{1 + number % 4}")
            sent.append(body)
            await frontend.send(BOOK, body)
            # the broker is down; what became of it is looked up at the end
            with suppress(TimeoutError):
                async with asyncio.timeout(3):
                    await poll(lambda: frontend.answers[body["requestId"]], what="an answer")

    await asyncio.gather(*(one(number) for number in range(count)))
    return sent


def received(broker: RunningBroker) -> dict[str, int]:
    """How often each citizen's report was taken in, over all suppliers."""
    return {
        report["citizen"]: report["times"]
        for supplier in broker.sandbox.suppliers.values()
        for report in supplier.inbox()
    }


async def test_kills_and_restarts_during_failing_bookings_and_deliveries_lose_no_report(
    broker: RunningBroker, frontend: Frontend, breakable_rabbit: RabbitNode, breakable_postgres: PostgresNode
) -> None:
    chance = random.Random(20261123)  # noqa: S311  a seed, so that the same moments come again
    process = await broker.start()

    async def harm() -> None:
        nonlocal process
        for turn in range(6):
            await asyncio.sleep(chance.uniform(0.8, 2.0))
            if turn == 2:
                await asyncio.to_thread(breakable_rabbit.kill)
                await asyncio.to_thread(breakable_rabbit.start)
            elif turn == 4:
                await asyncio.to_thread(breakable_postgres.kill)
                await asyncio.to_thread(breakable_postgres.start)
            else:
                process.kill()
                process = await broker.start()

    harming = asyncio.create_task(harm())
    sent = await fail_many(broker, frontend, FAILURES, harming)
    await harming
    last_word = await settled(broker, [body["requestId"] for body in sent], within=90)
    failed = {body["requestId"] for body in sent if last_word[body["requestId"]] == "failed"}
    assert len(failed) > FAILURES / 10

    # No failure without its report: what our own limits refused is the only exception, and has none
    rows = await broker.rows("SELECT report_id, request_id FROM reports")
    reported = {str(row["request_id"]) for row in rows}
    assert reported <= failed
    ours = sum(
        line.get("cause") in ("at-capacity", "not-sent", "misconfigured")
        for each in broker.processes
        for line in each.lines()
        if line.get("event") == "request-handled"
    )
    assert len(failed - reported) <= ours

    async def all_delivered() -> bool:
        left = await broker.rows("SELECT count(*) FROM reports WHERE state <> 'delivered'")
        return int(left[0][0]) == 0

    await poll(all_delivered, timeout=120, what="every report to be delivered")
    # And the suppliers' own books agree
    times = received(broker)
    by_id = {body["requestId"]: citizen_token(body["cpr"]) for body in sent}
    assert {by_id[request_id] for request_id in reported} == set(times)
    twice = {citizen for citizen, count in times.items() if count > 1}
    crashed = await broker.rows(
        "SELECT request_id FROM reports WHERE crashes > 0 OR report_id IN"
        " (SELECT report_id FROM attempt_results WHERE what IN ('timeout', 'reset') OR status >= 500)"
    )
    assert twice <= {by_id[str(row[0])] for row in crashed}, "a duplicate that no unanswered try explains"
    assert broker.sandbox.breaches() == []
    assert broker.sandbox.disagreements() == []


async def test_a_black_hole_among_four_suppliers_does_not_slow_the_others_and_loses_nothing(
    broker: RunningBroker, frontend: Frontend
) -> None:
    await broker.start()
    await broker.start()
    healthy = await _delivery_seconds(broker, frontend, range(0, 120))
    hole = broker.sandbox.suppliers["supplier-4"]
    hole.script("report", "hang", times=None, seconds=60, label="hole")
    beside = await _delivery_seconds(broker, frontend, range(200, 320))
    # No attempt is burned beyond those that opened the breaker
    retries = await broker.rows("SELECT coalesce(max(retries), 0) FROM reports WHERE supplier = 'supplier-4'")
    assert retries[0][0] <= 2
    hole.scripts.clear("hole")
    hole.release()

    async def all_delivered() -> bool:
        left = await broker.rows("SELECT count(*) FROM reports WHERE state <> 'delivered'")
        return int(left[0][0]) == 0

    await poll(all_delivered, timeout=60, what="the black hole's reports")
    assert broker.sandbox.breaches() == []
    if beside >= 3 * healthy:
        # The machine may have become slower meanwhile: compare with what it does now.
        healthy = max(healthy, await _delivery_seconds(broker, frontend, range(400, 520)))
    assert beside < 3 * healthy, f"{beside / healthy:.1f} times as slow beside a black hole"


async def _delivery_seconds(broker: RunningBroker, frontend: Frontend, numbers: range) -> float:
    """Median seconds from a report's making to its delivery at the first three suppliers."""
    slots = asyncio.Semaphore(10)
    healthy: list[UUID] = []

    async def one(number: int) -> None:
        async with slots:
            body = booking(
                broker, number, f"9000{1 + number % 4}"
            )  # now: a citizen's patience begins with it
            answer = await frontend.ask(BOOK, body)
        # One that came too late on a busy machine has no report.
        if answer["status"] == "failed" and body["jobcenterkode"] != "90004":
            healthy.append(report_of(UUID(body["requestId"])))

    await asyncio.gather(*(one(number) for number in numbers))
    assert len(healthy) > len(numbers) / 2

    async def taken() -> list[float] | None:
        rows = await broker.rows(
            "SELECT extract(epoch FROM settled_at - created_at)::float FROM reports"
            " WHERE state = 'delivered' AND report_id = ANY($1)",
            healthy,
        )
        return [row[0] for row in rows] if len(rows) == len(healthy) else None

    seconds: list[float] = await poll(taken, timeout=60, what="the deliveries at healthy suppliers")
    return statistics.median(seconds)
