"""Migrations: from nothing, again, several at once, refused when newer; the embedded server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from broker.errors import LedgerAway
from broker.ledger.ledger import Ledger
from broker.ledger.model import Claimed, LedgerMisfit
from broker.ledger.postgres import dead_tables, figures_tables, tables
from broker.ledger.postgres.versions import HEAD, bring_up_to_date, migrations, upgrade
from tests.ledger.support import ANN, BEN, Openers, Sql, ask, claimed, sealer_for, settings_for


async def test_an_empty_database_is_refused_with_the_command_to_run(database: str) -> None:
    settings = settings_for(database)
    with pytest.raises(LedgerMisfit, match="jobnet-broker ledger upgrade"):
        async with Ledger.open(settings, sealer_for(settings)):
            pass


async def test_an_old_database_is_refused_with_the_command_to_run(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.ledger.postgres.versions.HEAD", "9998")
    settings = settings_for(dsn)
    with pytest.raises(LedgerMisfit, match="needs 9998; run: jobnet-broker ledger upgrade"):
        async with Ledger.open(settings, sealer_for(settings)):
            pass


async def test_upgrades_may_be_repeated_and_run_at_once(database: str) -> None:
    before = await asyncio.gather(*(bring_up_to_date(database) for _ in range(4)))
    assert sorted(before) == ["", HEAD, HEAD, HEAD]


def test_an_upgrade_needs_no_loop(database: str) -> None:
    assert upgrade(database) == HEAD


async def test_a_newer_database_is_left_alone_but_can_be_used(dsn: str, sql: Sql, opened: Openers) -> None:
    """Expand, then contract: processes of the version before work on beside new ones."""
    await sql.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerMisfit, match="newer"):
        await bring_up_to_date(dsn)
    assert isinstance(await (await opened()).requests.claim(ask()), Claimed)


async def test_a_process_of_0003_works_on_beside_it(sql: Sql) -> None:
    """With the statements of that version: a heartbeat, an attempt's result, a list of dead letters."""
    await sql.execute(
        "INSERT INTO workers (id, pid, started_at, heartbeat_at, unbroken_since, ready)"
        " SELECT gen_random_uuid(), 7, now(), now(), now(), true"
    )
    await sql.execute(
        "INSERT INTO attempt_results VALUES (gen_random_uuid(), 1, ledger_now(), 'later', 'unavailable', 500, NULL,"
        " 'status 500', 90, true, true, gen_random_uuid()) ON CONFLICT DO NOTHING"
    )
    assert await sql.fetch("SELECT letter_id, fingerprint FROM letters WHERE supplier = 'x'") == []


async def test_the_tables_are_what_the_metadata_says(dsn: str) -> None:
    assert dead_tables.operator_log.metadata is figures_tables.flow.metadata is tables.metadata

    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), tables.metadata))

    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with engine.connect() as connection:
            assert await connection.run_sync(differences) == []
    finally:
        await engine.dispose()


def test_the_newest_migration_is_the_head() -> None:
    assert ScriptDirectory.from_config(migrations()).get_current_head() == HEAD


@pytest.mark.integration
async def test_an_unreachable_server_raises_ledger_away() -> None:
    nowhere = "postgresql://postgres@127.0.0.1:9/nothing"
    with pytest.raises(LedgerAway):
        await bring_up_to_date(nowhere)
    settings = settings_for(nowhere)
    with pytest.raises(LedgerAway):
        async with Ledger.open(settings, sealer_for(settings)):
            pass


async def test_an_upgrade_that_postgresql_refuses_says_why(dsn: str, sql: Sql) -> None:
    await sql.execute("DROP TABLE alembic_version")
    with pytest.raises(LedgerMisfit, match="refused the upgrade"):
        await bring_up_to_date(dsn)


async def test_a_token_key_that_open_turns_use_cannot_be_retired(opened: Openers) -> None:
    """The oldest key can be retired only when no open request uses it."""
    old = await opened(tokens=("t1", "t2"))
    claim = await claimed(old, ask())
    with pytest.raises(LedgerMisfit, match="token key t1"):
        await opened(tokens=("t2",))
    assert claim


EMBEDDED = """
import asyncio, sys
from broker.ledger.ledger import Ledger
from broker.ledger.model import Claimed
from config.settings import Settings
from tests.ledger.support import ask, sealer_for, settings_for
async def main():
    settings = settings_for("postgresql://x@y/z", embedded_directory=sys.argv[1])
    settings = settings.model_copy(update={"ledger": settings.ledger.model_copy(update={"dsn": None})})
    async with Ledger.open(settings, sealer_for(settings)) as ledger:
        assert isinstance(await ledger.requests.claim(ask(sys.argv[2])), Claimed)
        print(len(await ledger.lookups.workers()), flush=True)
        sys.stdin.readline()
asyncio.run(main())
"""


def start(directory: Path, number: str) -> subprocess.Popen[str]:
    """A separate process with a ledger on the embedded server, until it reads a line."""
    command = [sys.executable, "-c", EMBEDDED, str(directory), number]
    pipe, root = subprocess.PIPE, Path(__file__).parents[2]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root, env=dict(os.environ))


async def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return await asyncio.to_thread(process.stdout.readline)


async def end(process: subprocess.Popen[str]) -> int:
    await asyncio.to_thread(process.communicate, "\n")
    return process.returncode


@pytest.mark.integration
async def test_the_embedded_server_upgrades_itself_is_shared_and_ends_with_the_last(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    first = start(directory, ANN)
    assert await heard(first) == "1\n"
    second = start(directory, BEN)
    assert await heard(second) == "2\n"
    assert [path.stat().st_mode & 0o077 for path in directory.glob(".s.PGSQL.*") if path.is_socket()] == [0]
    assert await end(first) == 0
    assert (directory / "postmaster.pid").exists()
    assert await end(second) == 0
    assert not (directory / "postmaster.pid").exists()


@pytest.mark.integration
async def test_a_killed_process_does_not_keep_the_embedded_server_for_ever(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    killed = start(directory, ANN)
    assert await heard(killed) == "1\n"
    killed.kill()
    await asyncio.to_thread(killed.communicate)
    next_one = start(directory, BEN)
    assert await heard(next_one) == "2\n"
    assert await end(next_one) == 0
    assert not (directory / "postmaster.pid").exists()
