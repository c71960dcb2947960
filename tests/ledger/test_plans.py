"""No page scans a large table: checked in PostgreSQL's query plans.

Measures no times: these plans make the pages fast with a hundred thousand letters and a million requests. The flow
may be scanned, because retention bounds it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from broker.ledger.operators.operations import Operations
from broker.ledger.postgres.connections import Connection, LazyConnection
from broker.ledger.postgres.indexes import INDEXES, build_beside
from broker.ledger.postgres.versions import bring_up_to_date
from broker.ledger.upkeep.conservation import Conservation
from broker.ops import Filter, PageCursor
from scripts.postgres import PostgresServer
from tests.ledger.dead import dead_reports, operations_of
from tests.ledger.filled import fill
from tests.ledger.support import Sql, settings_for
from tests.support import poll

MANY_REQUESTS, MANY_LETTERS = 60_000, 20_000
WALK = re.compile(r"Seq Scan on (requests|reports|attempts|attempt_results)\b")
WIDE_WALK = re.compile(r"Seq Scan on (requests|reports)\b")
ROWS = re.compile(r"rows=([0-9.]+) loops=([0-9]+)")


class Explained:
    """A connection that keeps the plan of each statement it is asked."""

    def __init__(self, connection: Connection, plans: dict[str, str]) -> None:
        self._connection, self._plans = connection, plans

    async def fetch(self, statement: str, *values: object) -> Any:
        await self._explain(statement, values)
        return await self._connection.fetch(statement, *values)

    async def fetchrow(self, statement: str, *values: object) -> Any:
        await self._explain(statement, values)
        return await self._connection.fetchrow(statement, *values)

    async def fetchval(self, statement: str, *values: object) -> Any:
        await self._explain(statement, values)
        return await self._connection.fetchval(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def _explain(self, statement: str, values: tuple[object, ...]) -> None:
        rows = await self._connection.fetch(f"EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) {statement}", *values)
        self._plans[statement] = "\n".join(row[0] for row in rows)


@pytest.fixture(scope="module")
def filled_name(postgres: PostgresServer) -> Any:
    name = f"filled_{uuid4().hex[:12]}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
async def operations(filled_name: str) -> AsyncIterator[Operations]:
    """A operations over a ledger that is filled once for all tests."""
    if await bring_up_to_date(filled_name) == "":
        sql = await asyncpg.connect(filled_name)
        await fill(
            sql, requests=MANY_REQUESTS, letters=MANY_LETTERS, delivered=3 * MANY_LETTERS, waiting=1000
        )
        await sql.close()
    async with operations_of(settings_for(filled_name, statement_timeout_seconds=30)) as opened:
        yield opened


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The plan of every question that is asked from now on."""
    found: dict[str, str] = {}
    as_it_is = LazyConnection.run

    async def run(self: LazyConnection, work: Callable[[Any], Awaitable[Any]]) -> Any:
        return await as_it_is(self, lambda connection: work(Explained(connection, found)))

    monkeypatch.setattr(LazyConnection, "run", run)
    return found


def _far_behind() -> PageCursor:
    """Where most letters are newer."""
    return PageCursor(datetime.now(UTC) - timedelta(seconds=4 * MANY_LETTERS), uuid4())


async def _letter_and_story(operations: Operations) -> None:
    [letter] = (await operations.letters.page(Filter(), limit=1)).letters
    await operations.letters.one(letter.letter_id)
    await operations.stories.whole(letter.letter_id)


PAGES: dict[str, Callable[[Operations], Awaitable[object]]] = {
    "overview": lambda operations: operations.overviews.overview(),
    "overview of two weeks": lambda operations: operations.overviews.overview(hours=336, step_minutes=60),
    "letters": lambda operations: operations.letters.page(Filter()),
    "letters far behind": lambda operations: operations.letters.page(Filter(), after=_far_behind()),
    "letters of one kind of failure": lambda operations: operations.letters.page(
        Filter(supplier="supplier-1", cause="rejected")
    ),
    "letters about an id": lambda operations: operations.letters.page(Filter(about=uuid4())),
    "letters of a jobcenter": lambda operations: operations.letters.page(Filter(jobcenter_code="99999")),
    "groups": lambda operations: operations.letters.groups(Filter()),
    "one letter": _letter_and_story,
    "suppliers": lambda operations: operations.suppliers.figures(),
    "one supplier": lambda operations: operations.suppliers.story("supplier-1"),
    "operator log": lambda operations: operations.log.entries(),
    "lanes": lambda operations: operations.lanes.all(),
}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.timeout(240)
async def test_no_page_walks_through_a_large_table(
    operations: Operations, plans: dict[str, str], name: str
) -> None:
    await PAGES[name](operations)
    assert plans
    for statement, plan in plans.items():
        assert not WALK.search(plan), f"{statement}\n{plan}"


@pytest.mark.timeout(240)
async def test_the_conservation_check_of_every_minute_looks_at_what_is_open_and_new(
    filled_name: str, operations: Operations, plans: dict[str, str]
) -> None:
    await Conservation(settings_for(filled_name), operations.server, ["supplier-1 4"]).check()
    assert len(plans) > 10
    for statement, plan in plans.items():
        assert not WIDE_WALK.search(plan), f"{statement}\n{plan}"


@pytest.mark.timeout(240)
async def test_a_page_far_down_the_list_reads_no_more_than_the_first_one(
    operations: Operations, plans: dict[str, str]
) -> None:
    await operations.letters.page(Filter(), limit=50)
    first = _most_rows(plans)
    plans.clear()
    await operations.letters.page(Filter(), limit=50, after=_far_behind())
    assert _most_rows(plans) <= 2 * first
    assert first < MANY_LETTERS / 100


async def test_a_ledger_that_is_older_gets_its_indexes_beside_whoever_writes(dsn: str, sql: Sql) -> None:
    for name in INDEXES:
        await sql.execute(f"DROP INDEX {name}")
    await sql.execute(f"CREATE INDEX reports_letters_idx {INDEXES['reports_letters_idx']}")
    # What a build that was cut off leaves.
    await sql.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'reports_letters_idx'::regclass"
    )
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    await build_beside(engine)
    await build_beside(engine)
    await engine.dispose()
    rows = await sql.fetch(
        "SELECT indexrelid::regclass::text AS name FROM pg_index WHERE indisvalid AND indexrelid::regclass::text = ANY($1)",
        list(INDEXES),
    )
    assert {row["name"] for row in rows} == set(INDEXES)


async def test_while_an_index_is_built_others_write_on(dsn: str, sql: Sql) -> None:
    await sql.execute("DROP INDEX reports_letters_idx")
    [held, free] = await dead_reports(sql, 2)
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    other = await asyncpg.connect(dsn, server_settings={"lock_timeout": "5s"})
    async with sql.transaction():
        await sql.execute("UPDATE reports SET attempts = 7 WHERE report_id = $1", held)
        building = asyncio.create_task(build_beside(engine))

        async def waits() -> bool:
            return bool(
                await other.fetchval(
                    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%'"
                    " AND wait_event_type = 'Lock' AND datname = current_database())"
                )
            )

        await poll(waits, what="the building to wait for the open transaction")
        await other.execute("UPDATE reports SET attempts = 8 WHERE report_id = $1", free)
        await dead_reports(other)
        assert not building.done()
    await building
    assert await sql.fetchval(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'reports_letters_idx'::regclass"
    )
    await other.close()
    await engine.dispose()


def _most_rows(plans: dict[str, str]) -> float:
    [plan] = plans.values()
    return max(float(rows) * int(loops) for rows, loops in ROWS.findall(plan))
