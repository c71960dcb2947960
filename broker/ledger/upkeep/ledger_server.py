"""Finds the ledger's server, for commands that process whole tables without a heartbeat or claims."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from broker.ledger.ledger import dsn_of
from broker.ledger.postgres.connections import Server
from broker.ledger.postgres.versions import check_version
from broker.ledger.upkeep.table_walk import open_walk
from config.settings import Settings


@asynccontextmanager
async def ledger_server(settings: Settings) -> AsyncIterator[Server]:
    """The server of the ledger; the embedded one is started if there is no DSN.

    Raises LedgerAway, or LedgerMisfit with the command that helps.
    """
    async with AsyncExitStack() as stack:
        server = Server(await dsn_of(settings, stack), settings.ledger.statement_timeout_seconds)
        async with open_walk(server) as walk:
            await walk.run(check_version)
        yield server
