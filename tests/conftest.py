"""Servers for the tests: a RabbitMQ and a PostgreSQL per run, a virtual host and a database per test.

AMQP_URL (with AMQP_MANAGEMENT_URL) and JOBNET_TEST_DSN name servers of yours instead. What is missing is an
error, never a skip.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from broker.ledger.postgres.versions import upgrade
from scripts.postgres import PostgresNode, PostgresServer
from scripts.processes import LOCAL, private_folder
from scripts.rabbitmq import RabbitNode, RabbitServer
from tests.levels import FOLDERS, UNIT, length_rank, level_of, no_servers
from tests.support import Patience

pytest_plugins = ["tests.operators"]
TEST_TIMEOUT_S = 120.0
# How often within its limit a test is checked.
ALARMS = 20


def pytest_configure() -> None:
    # A shell that runs a command in the background lets it ignore SIGINT, which programs under test would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def run_folder() -> Iterator[Path]:
    """A folder under .local/ for the servers of this run, removed at its end."""
    with private_folder(LOCAL / "test") as folder:
        yield folder


@pytest.fixture(scope="session")
def rabbit(request: pytest.FixtureRequest) -> Iterator[RabbitServer]:
    """The RabbitMQ of this run. Not to be restarted: start a RabbitNode for that."""
    if url := os.environ.get("AMQP_URL"):
        at = urlsplit(url)
        management = f"http://{at.netloc.rpartition(':')[0] or at.netloc}:15672"
        yield RabbitServer(url, os.environ.get("AMQP_MANAGEMENT_URL", management))
        return
    node = RabbitNode(request.getfixturevalue("run_folder") / "rabbit")
    node.start()
    yield node
    node.kill()  # its data goes too, so there is nothing to end in good order


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """The PostgreSQL of this run. Not to be restarted: start a PostgresNode for that."""
    if dsn := os.environ.get("JOBNET_TEST_DSN"):
        yield PostgresServer(dsn)
        return
    node = PostgresNode(request.getfixturevalue("run_folder") / "postgres")
    node.start()
    # It is never restarted, so nothing needs to outlive it.
    for setting in ("fsync", "full_page_writes"):
        node.psql(f"ALTER SYSTEM SET {setting} = off")
    node.psql("SELECT pg_reload_conf()")
    yield node
    node.kill()


@pytest.fixture
def vhost(rabbit: RabbitServer) -> Iterator[str]:
    """The AMQP address of an empty virtual host of this test's own."""
    name = f"test-{uuid4().hex[:12]}"
    yield rabbit.create_vhost(name)
    rabbit.delete_vhost(name)


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The DSN (postgresql://…) of an empty database of this test's own."""
    name = f"test_{uuid4().hex[:12]}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def upgraded(postgres: PostgresServer) -> Iterator[str]:
    """The name of a database with the ledger's tables, made once to be copied: a copy takes a tenth of the time."""
    name = f"upgraded_{uuid4().hex[:12]}"
    upgrade(postgres.create_database(name))
    yield name
    postgres.drop_database(name)


@pytest.fixture
def ledger_database(postgres: PostgresServer, upgraded: str) -> Iterator[str]:
    """The DSN of a database of this test's own, with the ledger's tables and nothing in them."""
    name = f"test_{uuid4().hex[:12]}"
    yield postgres.create_database(name, like=upgraded)
    postgres.drop_database(name)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Folders without unit tests need not be imported for `-m unit`."""
    return True if config.option.markexpr == UNIT and collection_path.name in FOLDERS else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its level, before `-m` chooses, and start with the files that take longest."""
    for item in items:
        item.add_marker(level_of(item))
    items.sort(key=length_rank)


@pytest.fixture(autouse=True)
def _unit_tests_need_no_server(request: pytest.FixtureRequest) -> Iterator[None]:
    with no_servers() if request.node.get_closest_marker(UNIT) else nullcontext():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """An alarm for each test: a test that hangs fails, and its traceback shows where.

    `@pytest.mark.timeout(seconds)` sets another limit; both are in seconds of an idle machine, see `Patience`.
    """
    marker = item.get_closest_marker("timeout")
    seconds = float(marker.args[0]) if marker else TEST_TIMEOUT_S
    patience = Patience(seconds)

    def ring(_signal: int, _frame: FrameType | None) -> None:
        if patience.is_over():
            raise TimeoutError(f"the test took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds / ALARMS, seconds / ALARMS)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
