"""An operator's desk over a real ledger, as fixtures for whoever imports them: settings, a connection of SQL, the desk."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from broker.ledger.operators.operations import Operations
from config.settings import Settings
from tests.ledger.dead import desk_of
from tests.ledger.support import Sql, settings_for


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
async def desk(settings: Settings) -> AsyncIterator[Operations]:
    async with desk_of(settings) as opened:
        yield opened
