"""Where the ledger is, for commands that go over whole tables without heartbeat or claim.

Opens nothing that stays open but, without a DSN, the embedded server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from broker.ledger.ledger import dsn_of
from broker.ledger.postgres.connections import Server
from broker.ledger.postgres.versions import check_version
from broker.ledger.upkeep.walking import walking
from config.settings import Settings


@asynccontextmanager
async def ledger_target(settings: Settings) -> AsyncIterator[Server]:
    """Raises LedgerAway, or LedgerMisfit with the command that helps."""
    async with AsyncExitStack() as stack:
        target = Server(await dsn_of(settings, stack), settings.ledger.statement_timeout_seconds)
        async with walking(target) as walk:
            await walk.run(check_version)
        yield target
