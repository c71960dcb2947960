"""An operator at a real ledger, for the tests of operations, commands and console: fixtures for all folders."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest
from click.testing import CliRunner, Result

from broker.cli.main import main
from broker.ledger.operators.operations import Operations
from config.settings import EXAMPLE, Settings
from tests.ledger.dead import operations_of
from tests.ledger.support import Sql, key, settings_for

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def settings(ledger_database: str) -> Settings:
    return settings_for(ledger_database, statement_timeout_seconds=10)


@pytest.fixture
async def sql(settings: Settings) -> AsyncIterator[Sql]:
    assert settings.ledger.dsn
    connection = await asyncpg.connect(settings.ledger.dsn.get_secret_value())
    yield connection
    await connection.close()


@pytest.fixture
async def operations(settings: Settings) -> AsyncIterator[Operations]:
    async with operations_of(settings) as opened:
        yield opened


def environment_of(settings: Settings) -> dict[str, str]:
    """What a command needs to find this ledger."""
    assert settings.ledger.dsn
    return {
        "JOBNET_BROKER__RABBITMQ__URL": "amqp://guest:guest@127.0.0.1/",
        "JOBNET_BROKER__DIRECTORY__FILE": str(EXAMPLE),
        "JOBNET_BROKER__LEDGER__DSN": settings.ledger.dsn.get_secret_value(),
        "JOBNET_BROKER__KEYS__SEALING": json.dumps({"s1": key(1)}),
        "JOBNET_BROKER__KEYS__SEAL_WITH": "s1",
        "JOBNET_BROKER__KEYS__TOKENS": json.dumps({"t1": key(11)}),
        "JOBNET_BROKER__KEYS__TOKEN_ORDER": json.dumps(["t1"]),
    }


@pytest.fixture
def command(settings: Settings) -> Command:
    """The command line, in a thread since it makes a loop of its own."""
    environment = environment_of(settings)

    async def run(*words: object, stdin: str = "") -> Result:
        words_ = [str(word) for word in words]
        return await asyncio.to_thread(CliRunner().invoke, main, words_, input=stdin, env=environment)

    return run
