"""Stages for functional tests: one that many tests share, and one of its own for tests that break things."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4
from weakref import WeakKeyDictionary

import pytest
import pytest_asyncio

from broker.ledger.postgres.versions import bring_up_to_date
from sandbox.servers import Sandbox
from sandbox.system_layout import Layout
from scripts.postgres import PostgresNode, PostgresServer
from scripts.rabbitmq import RabbitNode, RabbitServer
from tests.functional.running_broker import Frontend, RunningBroker, layout


@pytest.fixture(scope="session")
def breakable_rabbit(run_folder: Path) -> Iterator[RabbitNode]:
    """A RabbitMQ that tests may kill and restart."""
    node = RabbitNode(run_folder / "breakable-rabbit")
    node.start()
    yield node
    node.kill()


@pytest.fixture(scope="session")
def breakable_postgres(run_folder: Path) -> Iterator[PostgresNode]:
    """A PostgreSQL that tests may kill and restart."""
    node = PostgresNode(run_folder / "breakable-postgres")
    node.start()
    yield node
    node.kill()


async def ledger_template(postgres: PostgresServer) -> str:
    """The name of a database on this server with the ledger's tables, made once to be copied."""
    if postgres not in _templates:
        name = f"template_{uuid4().hex[:12]}"
        await bring_up_to_date(postgres.create_database(name))
        _templates[postgres] = name
    return _templates[postgres]


_templates: WeakKeyDictionary[PostgresServer, str] = WeakKeyDictionary()


@asynccontextmanager
async def prepared_broker(
    rabbit: RabbitServer, postgres: PostgresServer, folder: Path, setting: Layout
) -> AsyncIterator[RunningBroker]:
    """A prepared broker with a virtual host, a database and a sandbox of its own; nothing is left of it."""
    name = f"broker_{uuid4().hex[:12]}"
    url, dsn = rabbit.create_vhost(name), postgres.create_database(name, like=await ledger_template(postgres))
    async with Sandbox(setting) as sandbox:
        broker = RunningBroker(url, dsn, folder, sandbox)
        try:
            await broker.prepare()
            yield broker
        finally:
            await broker.close()
    rabbit.delete_vhost(name)
    postgres.drop_database(name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    rabbit: RabbitServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningBroker]:
    """A running broker that all tests of a module share."""
    async with prepared_broker(
        rabbit, postgres, tmp_path_factory.mktemp("broker"), layout(systems=3)
    ) as broker:
        await broker.start()
        yield broker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def frontend(shared: RunningBroker) -> AsyncIterator[Frontend]:
    """A Jobnet frontend on the shared broker."""
    async with Frontend(shared.amqp_url) as frontend:
        yield frontend
