"""Servers restarted, links cut, an exchange deleted, with a thousand bookings under way.

After each fault every request has exactly one honest final answer; no meeting is booked twice, none is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from scripts.postgres import PostgresNode
from scripts.rabbitmq import RabbitNode
from tests.functional.book_many import BOOK, BOOKINGS, book_many
from tests.functional.conftest import prepared_broker
from tests.functional.running_broker import Frontend, RunningBroker, audit, booking, layout
from tests.proxy import TcpProxy
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


async def test_rabbitmq_restarted(
    broker: RunningBroker, frontend: Frontend, breakable_rabbit: RabbitNode
) -> None:
    await broker.start()

    async def restart() -> None:
        await asyncio.sleep(0.7)
        await asyncio.to_thread(breakable_rabbit.kill)
        await asyncio.to_thread(breakable_rabbit.start)

    sent = await book_many(broker, frontend, restart)
    counts = await audit(broker, frontend, sent, within=90)
    assert counts["done"] > BOOKINGS / 10, counts


async def test_postgresql_restarted(
    broker: RunningBroker, frontend: Frontend, breakable_postgres: PostgresNode
) -> None:
    await broker.start()

    async def restart() -> None:
        await asyncio.sleep(0.7)
        await asyncio.to_thread(breakable_postgres.kill)
        await asyncio.sleep(1.5)
        await asyncio.to_thread(breakable_postgres.start)

    sent = await book_many(broker, frontend, restart)
    counts = await audit(broker, frontend, sent, within=90)
    assert counts["done"] > BOOKINGS / 10, counts


@pytest.mark.parametrize("link", ["rabbitmq", "postgresql", "booking system"])
async def test_the_connection_cut_again_and_again(
    broker: RunningBroker, frontend: Frontend, breakable_rabbit: RabbitNode, link: str
) -> None:
    system = broker.sandbox.booking_systems["system-1"]
    targets = {
        "rabbitmq": urlsplit(broker.amqp_url),
        "postgresql": urlsplit(broker.dsn),
        "booking system": urlsplit(system.base_url),
    }
    target = targets[link]
    async with TcpProxy(target.hostname or "127.0.0.1", target.port or 0) as proxy:
        changes = {}
        there, here = f":{target.port}", f":{proxy.port}"
        if link == "rabbitmq":
            changes["JOBNET_BROKER__RABBITMQ__URL"] = broker.amqp_url.replace(there, here)
        elif link == "postgresql":
            changes["JOBNET_BROKER__LEDGER__DSN"] = broker.dsn.replace(there, here)
        else:
            directory = broker.folder / "directory.toml"
            directory.write_text(directory.read_text().replace(there, here))
        await broker.start(changes=changes)

        async def cut() -> None:
            for _ in range(8):
                await asyncio.sleep(0.4)
                proxy.cut()

        sent = await book_many(broker, frontend, cut)
        counts = await audit(broker, frontend, sent, within=90)
    assert counts["done"] > BOOKINGS / 10, counts


async def test_an_outcome_that_rabbitmq_did_not_take_is_told_when_its_exchange_is_back(
    broker: RunningBroker, frontend: Frontend
) -> None:
    process = await broker.start()
    # When the exchange of outcomes is gone, then bookings are answered all the same
    await frontend.remove_outcomes()
    body = booking(broker, 0)
    assert (await frontend.ask(BOOK, body, within=60))["status"] == "done"
    due = "SELECT count(*) FROM requests WHERE event_due_at IS NOT NULL"

    async def stays_due() -> bool:
        return bool((await broker.rows(due))[0][0] == 1)

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
