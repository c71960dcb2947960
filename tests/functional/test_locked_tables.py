"""A table of the ledger locked for nine seconds, at the default settings, while citizens book."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from scripts.postgres import PostgresServer
from scripts.processes import free_port
from scripts.rabbitmq import RabbitServer
from tests.functional.conftest import prepared_broker
from tests.functional.running_broker import Frontend, RunningBroker, booking, fetched, late, layout
from tests.support import poll

BOOK = "booking.book.v1"
LOCKED_S = 9.0
NOT_READY = "not ready: PostgreSQL does not do the ledger's work: its tables are locked (SQLSTATE 55P03)\n"

pytestmark = [pytest.mark.timeout(120)]


@pytest_asyncio.fixture
async def broker(
    rabbit: RabbitServer, postgres: PostgresServer, tmp_path: Path
) -> AsyncIterator[RunningBroker]:
    async with prepared_broker(rabbit, postgres, tmp_path, layout()) as broker:
        broker.config.write_text("")
        yield broker


async def test_a_locked_table_makes_nothing_uncertain(broker: RunningBroker) -> None:
    health = {"JOBNET_BROKER__HEALTH__PORT": str(free_port())}
    process = await broker.start(changes=health)
    async with Frontend(broker.amqp_url) as frontend:
        assert (await frontend.ask(BOOK, booking(broker, 0), within=30))["status"] == "done"
        lock = await asyncpg.connect(broker.dsn)
        # Half of them have a citizen who waits for longer than the lock, the others do not.
        patient = [booking(broker, n) for n in range(1, 31)]
        hurried = [booking(broker, n) for n in range(31, 61)]
        async with lock.transaction():
            await lock.execute("LOCK TABLE requests IN ACCESS EXCLUSIVE MODE")
            for body, hurry in zip(patient, hurried, strict=True):
                await frontend.send(BOOK, body)
                await frontend.send(BOOK, hurry | {"deadline": late(-5)})
                await asyncio.sleep(0.1)
            await poll(lambda: any("ledger-away" in str(line) for line in process.lines()), what="the outage")
            assert (await fetched(health, "readyz")) == (503, NOT_READY)
            await asyncio.sleep(LOCKED_S - 3)
            assert not [body for body in (*patient, *hurried) if frontend.answers[body["requestId"]]]
            assert [line["ready"] for line in process.lines() if line.get("event") == "readiness"] == [
                True,
                False,
            ]
        await lock.close()

        def answered() -> bool:
            return all(frontend.answers[body["requestId"]] for body in (*patient, *hurried))

        await poll(answered, timeout=30, what="an answer to each")
        answers = [frontend.answers[body["requestId"]][0] for body in (*patient, *hurried)]
        assert [answer["status"] for answer in answers] == ["done"] * 30 + ["expired"] * 30
        # The ledger says what the frontend heard, and a repeat hears it again.
        rows = await broker.rows("SELECT status, count(*) FROM requests GROUP BY 1 ORDER BY 1")
        assert [tuple(row) for row in rows] == [("done", 31), ("expired", 30)]
        assert (await frontend.ask(BOOK, patient[0], within=30))["status"] == "done"
    lines = process.lines()
    assert len([line for line in lines if line["event"] == "ledger-away"]) == 1
    assert not [line for line in lines if "exception" in line or "Traceback" in str(line)]
