"""Stages for functional tests: one that many tests share, and one of its own for tests that break things."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from sandbox.servers import Sandbox
from scripts.postgres import PostgresNode, PostgresServer
from scripts.rabbitmq import RabbitNode, RabbitServer
from tests.functional.stage import Frontend, Stage, layout


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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    rabbit: RabbitServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """A running broker that all tests of a module share."""
    folder = tmp_path_factory.mktemp("stage")
    name = folder.name.replace("-", "_") + folder.parent.name.replace("-", "_")
    url, dsn = rabbit.create_vhost(name), postgres.create_database(name)
    async with Sandbox(layout(systems=3)) as sandbox:
        stage = Stage(url, dsn, folder, sandbox)
        try:
            await stage.prepare()
            await stage.start()
            yield stage
        finally:
            await stage.close()
    rabbit.delete_vhost(name)
    postgres.drop_database(name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def frontend(shared: Stage) -> AsyncIterator[Frontend]:
    """A Jobnet frontend on the shared stage."""
    async with Frontend(shared.amqp_url) as frontend:
        yield frontend
