"""The private servers of `make run` and `make test`: they serve, keep what they were given, leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import asyncpg
import pika
import psutil
import pytest

from scripts.postgres import PostgresNode
from scripts.processes import StartFailed, free_port, listens
from scripts.rabbitmq import RabbitNode, RabbitServer
from tests.support import poll

pytestmark = pytest.mark.integration

QUEUE = "kept"


def below(pid: int) -> list[psutil.Process]:
    return list(psutil.Process(pid).children(recursive=True))


def serves(process: psutil.Process, node: RabbitNode) -> bool:
    """Whether this process belongs to that node: its servers have the node's folder for a home."""
    try:
        return bool(process.environ().get("HOME") == str(node.directory))
    except psutil.Error:
        return False


def publish(url: str, body: bytes) -> None:
    """One persistent message, confirmed, on a durable quorum queue."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", QUEUE, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
    connection.close()


def take(url: str) -> bytes | None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    _, _, body = connection.channel().basic_get(QUEUE, auto_ack=True)
    connection.close()
    return cast("bytes | None", body)  # pika's own annotation says str


async def rows(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row["number"] for row in await connection.fetch("SELECT number FROM kept ORDER BY number")]
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def own_rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """One node for the tests that stop it: starting takes seconds."""
    node = RabbitNode(tmp_path_factory.mktemp("rabbit"))
    node.start()
    yield node
    node.kill()


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[PostgresNode]:
    with PostgresNode(tmp_path) as node:
        yield node


def test_a_foreign_client_reaches_the_virtual_host_of_a_test(vhost: str) -> None:
    publish(vhost, b"hello")
    assert take(vhost) == b"hello"


async def test_the_depth_of_a_queue_can_be_awaited(vhost: str, rabbit: RabbitServer) -> None:
    publish(vhost, b"one")
    name = urlsplit(vhost).path.lstrip("/")
    assert await poll(lambda: rabbit.queue_depth(QUEUE, name), what="one message in the queue") == 1


def test_an_unknown_queue_is_a_lookup_error(rabbit: RabbitServer) -> None:
    with pytest.raises(LookupError, match="no queue nobody"):
        rabbit.queue_depth("nobody-declared-this")


def test_a_confirmed_message_outlives_a_restart_and_a_kill_of_the_node(own_rabbit: RabbitNode) -> None:
    url = own_rabbit.amqp_url
    publish(url, b"outlives both")
    own_rabbit.restart()
    own_rabbit.kill()
    own_rabbit.start()
    assert own_rabbit.amqp_url == url
    assert take(url) == b"outlives both"


def test_a_killed_rabbitmq_leaves_no_process_and_no_open_port(own_rabbit: RabbitNode) -> None:
    own_rabbit.start()
    started = [process for process in below(os.getpid()) if serves(process, own_rabbit)]
    # A loader may have started them, and then the process has the loader's name.
    assert {"beam.smp", "epmd"} <= {Path(word).name for process in started for word in process.cmdline()}
    own_rabbit.kill()
    assert not [process for process in started if process.is_running()]
    assert not listens(urlsplit(own_rabbit.amqp_url).port or 0)


def test_rabbitmqctl_speaks_to_our_node_only(own_rabbit: RabbitNode) -> None:
    own_rabbit.start()
    assert "/" in own_rabbit.ctl("list_vhosts")
    with pytest.raises(RuntimeError, match="no-such-command"):
        own_rabbit.ctl("no-such-command")


async def test_a_committed_row_outlives_a_restart_and_a_kill_of_postgres(own_postgres: PostgresNode) -> None:
    dsn = own_postgres.create_database("keeps")
    own_postgres.psql("CREATE TABLE kept (number int)", "keeps")
    own_postgres.psql("INSERT INTO kept VALUES (1)", "keeps")
    own_postgres.restart()
    own_postgres.psql("INSERT INTO kept VALUES (2)", "keeps")
    own_postgres.kill()
    own_postgres.start()
    assert await rows(dsn) == [1, 2]


def test_a_stopped_postgres_leaves_no_process_and_no_open_port(own_postgres: PostgresNode) -> None:
    postmaster = psutil.Process(own_postgres.pid)
    started = [postmaster, *postmaster.children(recursive=True)]
    own_postgres.stop()
    assert not [process for process in started if process.is_running()]
    assert not listens(urlsplit(own_postgres.dsn).port or 0)


async def test_each_test_has_an_empty_database(database: str) -> None:
    connection = await asyncpg.connect(database)
    tables = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()
    assert tables == 0


def test_a_postgres_that_cannot_start_says_why(own_postgres: PostgresNode, tmp_path: Path) -> None:
    own_postgres.stop()
    (own_postgres.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(StartFailed, match=r"(?s)ended.*version 9"):
        own_postgres.start()


def test_statements_that_fail_say_why(own_postgres: PostgresNode) -> None:
    with pytest.raises(RuntimeError, match="syntax error"):
        own_postgres.psql("SELEKT 1")


def owner_of_a_server(folder: Path) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """A process that starts a PostgreSQL and waits; and the server."""
    code = (
        "import sys, time; from pathlib import Path; from scripts.postgres import PostgresNode\n"
        "node = PostgresNode(Path(sys.argv[1])); node.start(); print(node.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert owner.stdout is not None
    with owner.stdout:
        return owner, psutil.Process(int(owner.stdout.readline()))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
async def test_however_its_owner_ends_the_server_ends_too(tmp_path: Path, how: signal.Signals) -> None:
    owner, server = owner_of_a_server(tmp_path)
    owner.send_signal(how)
    owner.wait()
    await poll(lambda: not server.is_running(), what=f"the server to end after {how.name} for its owner")


async def test_a_killed_keeper_takes_its_server_along(own_postgres: PostgresNode) -> None:
    server = psutil.Process(own_postgres.pid)
    server.parent().kill()
    await poll(lambda: not server.is_running(), what="the server to end after its keeper")


def test_free_ports_are_below_the_range_of_outgoing_connections() -> None:
    assert free_port() < 32_768


async def test_poll_says_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match="waiting for a blue moon; last: 0"):
        await poll(lambda: 0, timeout=0.05, what="a blue moon")
