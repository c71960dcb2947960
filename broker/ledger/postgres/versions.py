"""Upgrades a database to the version of this code, and refuses one that is behind it.

Expand, then contract: a migration only adds, so that processes of the version before keep working; what it replaces is
dropped by a later release. The migrations are one transaction under an advisory lock, so that processes that start
together upgrade once; indexes on living tables follow, built concurrently (indexes.py). A process runs against a newer
database, which a newer release has expanded, but never changes one.

A migration that waits for a lock on a table makes every later statement on that table wait behind it. So it waits for
a moment only, gives up, lets them through and tries again.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from broker.errors import LedgerAway
from broker.ledger.model import LedgerMisfit
from broker.ledger.postgres.advisory_locks import UPGRADE
from broker.ledger.postgres.connections import is_foreign
from broker.ledger.postgres.indexes import build_at_once, build_beside

MIGRATIONS = Path(__file__).parent.with_name("migrations")
HEAD = "0004"
"""The newest migration; a test compares it with the files, so that a start need not read them."""
LOCK_WAIT = "250ms"
"""How long one try waits for each lock: the longest delay that an upgrade causes for working processes."""
PASSING = ("55P03", "40P01")
PAUSES_S = (0.1, 0.2, 0.4, 0.8, *(1.6,) * 36)
"""Between the tries, together a minute: then somebody holds a lock on a table, and the upgrade says so."""
COMMAND = "jobnet-broker ledger upgrade"


def migrations() -> Config:
    """The Alembic configuration, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def upgrade(dsn: str) -> str:
    """As `bring_up_to_date`, for callers without an event loop; returns the revision that the database has now."""
    asyncio.run(bring_up_to_date(dsn))
    return HEAD


async def bring_up_to_date(dsn: str) -> str:
    """Bring the database to HEAD and return the revision it had ("" if none). Raises LedgerMisfit, LedgerAway."""
    plain = dsn.replace("postgresql+asyncpg://", "postgresql://", 1)

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(plain, server_settings={"lock_timeout": "60s"}, timeout=30)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        before = await _upgrade_beside(engine)
        await build_beside(engine)
        return before
    except DBAPIError as error:
        raise LedgerMisfit(f"PostgreSQL refused the upgrade: {error.orig}") from error
    except Exception as error:
        if is_foreign(error):
            raise LedgerAway(f"PostgreSQL cannot be reached ({type(error).__name__})") from error
        raise
    finally:
        await engine.dispose()


async def _upgrade_beside(engine: AsyncEngine) -> str:
    for pause_s in PAUSES_S:
        try:
            async with engine.begin() as connection:
                await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'"))
                return await _upgrade(connection)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in PASSING:
                raise
        await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  spreads retries, guards nothing
    raise LedgerMisfit(
        "another session keeps a table of the ledger locked; nothing was changed, try again later"
    )


async def _upgrade(connection: AsyncConnection) -> str:
    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE})
    exists = await connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
    before = await connection.scalar(text("SELECT version_num FROM alembic_version")) if exists else None
    if before is not None and before not in known():
        raise LedgerMisfit(
            f"the database is at version {before}, newer than this broker ({HEAD}); use its broker"
        )
    await connection.run_sync(_run)
    if before is None:
        await build_at_once(connection)
    return before or ""


def _run(connection: Connection) -> None:
    config = migrations()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def known() -> set[str]:
    """The revisions that this code has a migration for."""
    return {script.revision for script in ScriptDirectory.from_config(migrations()).walk_revisions()}


async def check_version(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Raises LedgerMisfit, with the command to run, when the database is behind this code."""
    exists = await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL")
    version = await connection.fetchval("SELECT version_num FROM alembic_version") if exists else None
    if version is None:
        raise LedgerMisfit(f"the database has no ledger yet; run: {COMMAND}")
    if version != HEAD and version in known():
        raise LedgerMisfit(f"the ledger is at version {version}, this broker needs {HEAD}; run: {COMMAND}")
