"""Migrations: from nothing, again, several at once, refused when newer; the embedded server."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from broker.errors import LedgerAway
from broker.ledger.ledger import Ledger
from broker.ledger.model import Claimed, LedgerMisfit
from broker.ledger.postgres import dead_tables, figures_tables, tables
from broker.ledger.postgres.indexes import INDEXES
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


async def at_revision(dsn: str, revision: str) -> None:
    """The tables of an older release, made as that release made them."""

    def run(connection: Connection) -> None:
        config = migrations()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(run)
    finally:
        await engine.dispose()


# What a process of 0003 writes while it works.
WORK = (
    "INSERT INTO workers (id, pid, started_at, heartbeat_at, unbroken_since, ready)"
    " SELECT gen_random_uuid(), 7, now(), now(), now(), true",
    "INSERT INTO attempt_results VALUES (gen_random_uuid(), 1, ledger_now(), 'later', 'unavailable', 500, NULL,"
    " 'status 500', 90, true, true, gen_random_uuid())",
    "UPDATE requests SET event_due_at = NULL WHERE request_id = gen_random_uuid()",
    "UPDATE reports SET event_due_at = NULL WHERE report_id = gen_random_uuid()",
)


@pytest.mark.parametrize("revision", ["0002", "0003"])
async def test_an_upgrade_beside_a_working_process_makes_it_wait_for_a_moment_only(
    database: str, revision: str
) -> None:
    await at_revision(database, revision)
    writer, reader = await asyncpg.connect(database), await asyncpg.connect(database)
    longest, done = 0.0, asyncio.Event()

    async def work() -> None:
        nonlocal longest
        while not done.is_set():
            for statement in WORK:
                began = monotonic()
                await writer.execute(statement)
                longest = max(longest, monotonic() - began)
            await asyncio.sleep(0.005)

    async def read() -> None:
        """A report of an operator, or a backup: an ordinary lock on every table, for some seconds."""
        async with reader.transaction():
            for table in ("workers", "attempt_results", "requests", "reports"):
                await reader.fetch(f"SELECT count(*) FROM {table}")  # noqa: S608
            reading.set()
            await asyncio.sleep(4)

    reading = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work())
        tasks.create_task(read())
        await reading.wait()
        assert await bring_up_to_date(database) == revision
        done.set()
    assert longest < 1.5, longest
    assert await reader.fetchval("SELECT version_num FROM alembic_version") == HEAD
    missing = set(INDEXES) - {row[0] for row in await reader.fetch("SELECT indexname FROM pg_indexes")}
    assert missing == set()
    await writer.close()
    await reader.close()


async def test_an_upgrade_that_never_gets_its_lock_says_so_and_changes_nothing(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.ledger.postgres.versions.PAUSES_S", (0.05, 0.05))
    await at_revision(database, "0003")
    other = await asyncpg.connect(database)
    async with other.transaction():
        await other.execute("LOCK TABLE workers IN ACCESS SHARE MODE")
        with pytest.raises(LedgerMisfit, match="locked; nothing was changed"):
            await bring_up_to_date(database)
    assert await other.fetchval("SELECT version_num FROM alembic_version") == "0003"
    await other.close()
    assert await bring_up_to_date(database) == "0003"


def test_a_migration_changes_living_tables_only_in_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """No index on a table that processes write to (indexes.py builds those), no column that rewrites the rows."""
    for script in ScriptDirectory.from_config(migrations()).walk_revisions():
        run: list[str] = []
        monkeypatch.setattr("alembic.op.execute", lambda statement, run=run: run.append(str(statement)))
        script.module.upgrade()
        made = {name for statement in run for name in re.findall(r"CREATE TABLE (\w+)", statement)}
        assert [
            s for s in run if (on := re.search(r"CREATE .*INDEX .* ON (\w+)", s)) and on[1] not in made
        ] == []
        altered = [s for s in run if (on := re.search(r"ALTER TABLE (\w+)", s)) and on[1] not in made]
        plain = r"ALTER TABLE \w+ (ADD COLUMN \w+ \w+(, )?)+"
        assert [statement for statement in altered if not re.fullmatch(plain, statement)] == []


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
