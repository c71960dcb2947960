"""What a running worker says of itself while it works, and while its servers are away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from scripts.postgres import PostgresNode
from scripts.processes import free_port
from scripts.rabbitmq import RabbitNode
from tests.functional.conftest import prepared_broker
from tests.functional.running_broker import Frontend, RunningBroker, booking, fetched, layout, request
from tests.support import poll

pytestmark = [pytest.mark.timeout(240)]

Changes = dict[str, str]


@pytest_asyncio.fixture
async def broker(
    breakable_rabbit: RabbitNode, breakable_postgres: PostgresNode, tmp_path: Path
) -> AsyncIterator[RunningBroker]:
    async with prepared_broker(breakable_rabbit, breakable_postgres, tmp_path, layout()) as broker:
        yield broker


@pytest.fixture
def watched() -> Changes:
    """A health server on a port of its own."""
    return {"JOBNET_BROKER__HEALTH__PORT": str(free_port())}


async def value(watched: Changes, name: str, **labels: str) -> float:
    """The sum of the samples of that name with these labels."""
    _, text = await fetched(watched, "metrics")
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def becomes(expected: float, watched: Changes, name: str, **labels: str) -> None:
    async def is_so() -> bool:
        return await value(watched, name, **labels) == expected

    await poll(is_so, what=f"{name}{labels} = {expected}")


async def says(watched: Changes, word: str) -> None:
    """Wait until /readyz says this."""

    async def said() -> bool:
        return word in (await fetched(watched, "readyz"))[1]

    await poll(said, timeout=40, what=f"/readyz: {word}")


async def test_what_was_carried_is_counted_and_what_lies_dead_is_shown(
    broker: RunningBroker, watched: Changes
) -> None:
    broker.sandbox.suppliers["supplier-1"].script("report", "status", status=400, times=1)
    broker.sandbox.booking_systems["system-1"].script("reserve", "status", status=400, times=1)
    await broker.start(changes=watched)
    async with Frontend(broker.amqp_url) as frontend:
        failed = await frontend.ask("booking.book.v1", booking(broker, 1))
        booked = await frontend.ask("booking.book.v1", booking(broker, 2))
        await frontend.ask("query.offers.v1", request(3, kontaktgruppe="1"))
        await frontend.send("nobody.knows.v1", b"{}", routing_key="booking.book", reply_to=None)
        assert (failed["status"], booked["status"]) == ("failed", "done")
        await becomes(1, watched, "jobnet_answers_total", type="other", status="dead")
    book = "booking.book.v1"
    await becomes(2, watched, "jobnet_requests_total", type=book)
    await becomes(1, watched, "jobnet_answers_total", type=book, status="done")
    await becomes(1, watched, "jobnet_answers_total", type=book, status="failed", error_code="4")
    await becomes(2, watched, "jobnet_request_duration_seconds_count", type=book)
    await becomes(1, watched, "jobnet_calls_total", system="system-1", step="create", verdict="done")
    await becomes(1, watched, "jobnet_attempts_total", supplier="supplier-1", verdict="dead")
    await becomes(1, watched, "jobnet_dead_letters", queue="jobnet.reports.supplier-1.dead")
    await becomes(1, watched, "jobnet_lane_state", supplier="supplier-1", state="open")
    await becomes(0, watched, "jobnet_conservation_gaps")
    assert await value(watched, "jobnet_publishes_total", exchange="jobnet.outcomes", said="confirmed") >= 3
    assert await value(watched, "jobnet_ledger_batch_rows_sum", what="claims") >= 2
    assert await value(watched, "jobnet_dead_letters_oldest_age_seconds") > 0
    assert await value(watched, "jobnet_dead_letter_pass_timestamp_seconds") > 0
    expected = await value(watched, "jobnet_consumers_expected")
    assert expected == await value(watched, "jobnet_consumers_alive") == 5


async def test_a_ledger_that_is_away_is_a_reason_until_it_is_back(
    broker: RunningBroker, watched: Changes, breakable_postgres: PostgresNode
) -> None:
    await broker.start(changes=watched)
    assert await fetched(watched, "readyz") == (200, "ready\n")
    await asyncio.to_thread(breakable_postgres.stop)
    try:
        await says(watched, "not ready: PostgreSQL cannot be reached")
        assert await fetched(watched, "healthz") == (200, "alive\n")
        assert await value(watched, "jobnet_ledger_away") == 1
    finally:
        await asyncio.to_thread(breakable_postgres.start)
    await says(watched, "ready\n")
    await becomes(1, watched, "jobnet_ready")


async def test_an_alarm_of_rabbitmq_is_a_reason_until_it_is_over(
    broker: RunningBroker, watched: Changes, breakable_rabbit: RabbitNode
) -> None:
    # RabbitMQ tells of its alarm only who publishes: something that we must publish lies there already
    async with Frontend(broker.amqp_url) as frontend:
        await frontend.send("booking.book.v1", b"{}", reply_to=None)
    await asyncio.to_thread(breakable_rabbit.ctl, "set_vm_memory_high_watermark", "0.00001")
    try:
        await broker.start(changes=watched)
        await says(watched, "not ready: RabbitMQ accepts no publishes")
        assert await value(watched, "jobnet_rabbitmq_blocked") == 1
    finally:
        await asyncio.to_thread(breakable_rabbit.ctl, "set_vm_memory_high_watermark", "absolute", "1GB")
    await says(watched, "ready\n")


async def test_each_of_several_workers_has_a_port_of_its_own(broker: RunningBroker) -> None:
    first = free_port()
    await broker.start("--workers", "2", changes={"JOBNET_BROKER__HEALTH__PORT": str(first)})
    for port in (first, first + 1):
        assert await fetched({"JOBNET_BROKER__HEALTH__PORT": str(port)}, "healthz") == (200, "alive\n")
