"""Fixtures of the ledger's tests: an upgraded database, and ledgers as separate processes would open them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from broker.errors import LedgerAway
from broker.ledger.ledger import Ledger
from tests.ledger.support import Openers, sealer_for, settings_for

OPENINGS = 5


@pytest.fixture
def dsn(ledger_database: str) -> str:
    """The DSN of a database with the ledger's tables in it."""
    return ledger_database


@pytest.fixture
async def sql(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection that reads and changes rows directly."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def opened(dsn: str) -> AsyncIterator[Openers]:
    """Open any number of ledgers; all are closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(**changes: Any) -> Ledger:
            settings = settings_for(str(changes.pop("dsn", dsn)), **changes)
            return await stack.enter_async_context(Ledger.open(settings, sealer_for(settings)))

        yield open_one


@pytest.fixture
async def ledger(opened: Openers) -> Ledger:
    """An open ledger; opened again when a busy machine needs longer than the short time limit of these settings."""
    for _ in range(OPENINGS - 1):
        with contextlib.suppress(LedgerAway):
            return await opened()
    return await opened()
