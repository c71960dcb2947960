"""What survives: processes killed and frozen, servers restarted, links cut, a thousand bookings under way.

After each: every request has exactly one last word, told honestly; no meeting booked twice, none lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from scripts.postgres import PostgresNode
from scripts.rabbitmq import RabbitNode
from tests.functional.conftest import staged
from tests.functional.stage import Frontend, Stage, audit, booking, layout
from tests.proxy import TcpProxy
from tests.support import poll

pytestmark = [pytest.mark.timeout(400)]

BOOKINGS = 1000
AT_A_TIME = 60
BOOK = "booking.book.v1"


@pytest_asyncio.fixture
async def stage(
    breakable_rabbit: RabbitNode, breakable_postgres: PostgresNode, tmp_path: Path
) -> AsyncIterator[Stage]:
    # No breaker: what is looked at is what becomes of calls that were cut, not of those that were never made
    setting = layout(breaker_failures=100_000)
    async with staged(breakable_rabbit, breakable_postgres, tmp_path, setting) as stage:
        yield stage


@pytest_asyncio.fixture
async def frontend(stage: Stage) -> AsyncIterator[Frontend]:
    async with Frontend(stage.amqp_url) as frontend:
        yield frontend


async def book_many(
    stage: Stage,
    frontend: Frontend,
    during: Callable[[], Awaitable[None]],
    *,
    count: int = BOOKINGS,
    at_a_time: int = AT_A_TIME,
) -> list[dict[str, Any]]:
    """Send bookings, some at a time, while `during` does its harm; come back when all are sent and it is over."""
    sent: list[dict[str, Any]] = []
    slots = asyncio.Semaphore(at_a_time)

    async def one(number: int) -> None:
        async with slots:
            body = booking(stage, number)
            sent.append(body)
            await frontend.send(BOOK, body)
            # the broker is down for longer than a citizen waits: the audit waits for it
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await poll(lambda: frontend.answers[body["requestId"]], what="an answer")

    harm = asyncio.ensure_future(during())
    await asyncio.gather(*(one(number) for number in range(count)))
    await harm
    return sent


async def test_kill_nine_of_the_broker_five_times(stage: Stage, frontend: Frontend) -> None:
    chance = random.Random(20261123)  # noqa: S311  a seed, so that the same moments come again
    process = await stage.start()

    async def kill_and_restart() -> None:
        nonlocal process
        for _ in range(5):
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            process.kill()
            process = await stage.start()

    sent = await book_many(stage, frontend, kill_and_restart)
    counts = await audit(stage, frontend, sent, within=90)
    assert counts["done"] > BOOKINGS / 10, counts


async def test_rabbitmq_restarted(stage: Stage, frontend: Frontend, breakable_rabbit: RabbitNode) -> None:
    await stage.start()

    async def restart() -> None:
        await asyncio.sleep(0.7)
        await asyncio.to_thread(breakable_rabbit.kill)
        await asyncio.to_thread(breakable_rabbit.start)

    sent = await book_many(stage, frontend, restart)
    counts = await audit(stage, frontend, sent, within=90)
    assert counts["done"] > BOOKINGS / 10, counts


async def test_postgresql_restarted(
    stage: Stage, frontend: Frontend, breakable_postgres: PostgresNode
) -> None:
    await stage.start()

    async def restart() -> None:
        await asyncio.sleep(0.7)
        await asyncio.to_thread(breakable_postgres.kill)
        await asyncio.sleep(1.5)
        await asyncio.to_thread(breakable_postgres.start)

    sent = await book_many(stage, frontend, restart)
    counts = await audit(stage, frontend, sent, within=90)
    assert counts["done"] > BOOKINGS / 10, counts


@pytest.mark.parametrize("link", ["rabbitmq", "postgresql", "booking system"])
async def test_the_connection_cut_again_and_again(
    stage: Stage, frontend: Frontend, breakable_rabbit: RabbitNode, link: str
) -> None:
    system = stage.sandbox.booking_systems["system-1"]
    targets = {
        "rabbitmq": urlsplit(stage.amqp_url),
        "postgresql": urlsplit(stage.dsn),
        "booking system": urlsplit(system.base_url),
    }
    target = targets[link]
    async with TcpProxy(target.hostname or "127.0.0.1", target.port or 0) as proxy:
        changes = {}
        there, here = f":{target.port}", f":{proxy.port}"
        if link == "rabbitmq":
            changes["JOBNET_BROKER__RABBITMQ__URL"] = stage.amqp_url.replace(there, here)
        elif link == "postgresql":
            changes["JOBNET_BROKER__LEDGER__DSN"] = stage.dsn.replace(there, here)
        else:
            directory = stage.folder / "directory.toml"
            directory.write_text(directory.read_text().replace(there, here))
        await stage.start(changes=changes)

        async def cut() -> None:
            for _ in range(8):
                await asyncio.sleep(0.4)
                proxy.cut()

        sent = await book_many(stage, frontend, cut)
        counts = await audit(stage, frontend, sent, within=90)
    assert counts["done"] > BOOKINGS / 10, counts


async def test_one_of_two_workers_frozen_past_its_heartbeat_and_then_continued(
    stage: Stage, frontend: Frontend
) -> None:
    frozen = await stage.start()
    await stage.start()

    async def freeze() -> None:
        await asyncio.sleep(0.7)
        frozen.freeze()
        await asyncio.sleep(6)  # the harm itself: more than owner_dead_after_seconds
        frozen.thaw()

    sent = await book_many(stage, frontend, freeze)
    counts = await audit(stage, frontend, sent, within=90)
    assert counts["done"] > BOOKINGS / 10, counts


async def test_stopped_under_load_it_finishes_what_is_under_way(stage: Stage, frontend: Frontend) -> None:
    process = await stage.start()
    stage.sandbox.booking_systems["system-1"].script("create", "slow", times=None, seconds=0.3)

    async def stop_and_start() -> None:
        nonlocal process
        await asyncio.sleep(1)
        assert await process.stop(within=15) == 0
        process = await stage.start()

    sent = await book_many(stage, frontend, stop_and_start, count=300, at_a_time=20)
    counts = await audit(stage, frontend, sent, within=60)
    assert set(counts) <= {"done", "expired"}, counts
    # Nothing that was under way had to be looked up by the next process.
    assert not await stage.rows("SELECT 1 FROM requests WHERE dead_owners > 0")


async def test_an_outcome_that_rabbitmq_did_not_take_is_told_when_its_exchange_is_back(
    stage: Stage, frontend: Frontend
) -> None:
    process = await stage.start()
    # When the exchange of outcomes is gone, then bookings are answered all the same
    await frontend.remove_outcomes()
    body = booking(stage, 0)
    assert (await frontend.ask(BOOK, body, within=60))["status"] == "done"
    due = "SELECT count(*) FROM requests WHERE event_due_at IS NOT NULL"

    async def stays_due() -> bool:
        return bool((await stage.rows(due))[0][0] == 1)

    await poll(stays_due, timeout=60, what="the untold outcome to be due")
    assert not frontend.events[body["requestId"]]
    # And when it is back, the outcome is told; to nobody, if it could be told before somebody listens
    process.freeze()
    await frontend.restore_outcomes()
    await frontend.listen_to_outcomes()
    process.thaw()
    # An event that was tried in vain is tried again a minute later
    await poll(lambda: frontend.events[body["requestId"]], timeout=120, what="the outcome")
    assert frontend.events[body["requestId"]][0]["outcome"] == "done"
