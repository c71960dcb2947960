"""Broker processes killed, frozen and stopped, with a thousand bookings under way.

After each fault every request has exactly one honest final answer; no meeting is booked twice, none is lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from scripts.postgres import PostgresNode
from scripts.rabbitmq import RabbitNode
from tests.functional.book_many import BOOKINGS, book_many
from tests.functional.conftest import prepared_broker
from tests.functional.running_broker import Frontend, RunningBroker, audit, layout
from tests.support import poll

pytestmark = [pytest.mark.timeout(400)]


@pytest_asyncio.fixture
async def broker(
    breakable_rabbit: RabbitNode, breakable_postgres: PostgresNode, tmp_path: Path
) -> AsyncIterator[RunningBroker]:
    # No breaker: what is looked at is what becomes of calls that were cut, not of those that were never made
    setting = layout(breaker_failures=100_000)
    async with prepared_broker(breakable_rabbit, breakable_postgres, tmp_path, setting) as broker:
        yield broker


@pytest_asyncio.fixture
async def frontend(broker: RunningBroker) -> AsyncIterator[Frontend]:
    async with Frontend(broker.amqp_url) as frontend:
        yield frontend


def answered(frontend: Frontend) -> int:
    """How many requests have an answer."""
    return sum(bool(answers) for answers in frontend.answers.values())


def has_answered_more(frontend: Frontend, before: int) -> bool:
    return answered(frontend) > before


async def test_kill_nine_of_the_broker_five_times(broker: RunningBroker, frontend: Frontend) -> None:
    chance = random.Random(20261123)  # noqa: S311  a seed, so that the same moments come again
    process = await broker.start()

    async def kill_and_restart() -> None:
        nonlocal process
        for _ in range(5):
            await poll(partial(has_answered_more, frontend, answered(frontend)), what="the broker to answer")
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            process.kill()
            process = await broker.start()

    sent = await book_many(broker, frontend, kill_and_restart)
    counts = await audit(broker, frontend, sent, within=90)
    assert counts["done"] > BOOKINGS / 10, counts


async def test_one_of_two_workers_frozen_past_its_heartbeat_and_then_continued(
    broker: RunningBroker, frontend: Frontend
) -> None:
    frozen = await broker.start()
    await broker.start()

    async def freeze() -> None:
        await asyncio.sleep(0.7)
        frozen.freeze()
        await asyncio.sleep(6)  # the harm itself: more than owner_dead_after_seconds
        frozen.thaw()

    sent = await book_many(broker, frontend, freeze)
    counts = await audit(broker, frontend, sent, within=90)
    assert counts["done"] > BOOKINGS / 10, counts


async def test_stopped_under_load_it_finishes_what_is_under_way(
    broker: RunningBroker, frontend: Frontend
) -> None:
    # The restart takes long on a loaded machine, and this test is not about the patience of citizens.
    patient = {
        "JOBNET_BROKER__REQUESTS__PATIENCE_SECONDS": "20",
        "JOBNET_BROKER__HTTP__ABSENCE_PROVES_AFTER_SECONDS": "29",
        "JOBNET_BROKER__REPORTS__JOIN_WITHIN_SECONDS": "25",
    }
    process = await broker.start(changes=patient)
    broker.sandbox.booking_systems["system-1"].script("create", "slow", times=None, seconds=0.3)

    async def stop_and_start() -> None:
        nonlocal process
        await asyncio.sleep(1)
        assert await process.stop(within=15) == 0
        process = await broker.start(changes=patient)

    sent = await book_many(broker, frontend, stop_and_start, count=300, at_a_time=20)
    counts = await audit(broker, frontend, sent, within=60)
    assert set(counts) <= {"done", "expired"}, counts
    # Nothing that was under way had to be looked up by the next process.
    assert not await broker.rows("SELECT 1 FROM requests WHERE dead_owners > 0")
