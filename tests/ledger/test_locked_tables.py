"""Tables that another session has locked: work waits, the process is not ready, and no request is told anything untrue."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace

import asyncpg
import pytest

from broker.errors import LedgerAway
from broker.ledger.ledger import Ledger
from broker.ledger.model import Claimed, RowBusy, RowRefused
from broker.ledger.postgres.connections import TABLES, LazyConnection, Server
from broker.ledger.postgres.reachability import Availability
from broker.ledger.postgres.tables import metadata
from schemas.codes import Status
from tests.ledger.execution_support import execution_on, routed
from tests.ledger.report_support import failed, report_on
from tests.ledger.support import Openers, Sql, ask, claimed, ending, row
from tests.support import poll

LOCKED_S = 4.0
"""Longer than six lock timeouts of these settings."""


@contextlib.asynccontextmanager
async def locked(dsn: str, table: str, mode: str = "ACCESS EXCLUSIVE") -> AsyncIterator[None]:
    """The table is locked inside the block, as by somebody's ALTER TABLE or VACUUM FULL."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN {mode} MODE")
            yield
    finally:
        await connection.close()


@pytest.mark.parametrize("mode", ["ACCESS EXCLUSIVE", "SHARE"])
async def test_claims_wait_for_a_locked_table_and_the_process_is_not_ready(
    ledger: Ledger, dsn: str, mode: str
) -> None:
    async with locked(dsn, "requests", mode):
        claiming = [asyncio.create_task(ledger.requests.claim(ask())) for _ in range(40)]
        await asyncio.wait_for(ledger.availability.wait_until_away(), 5)
        turns = 0
        for _ in range(int(LOCKED_S / 0.1)):
            await asyncio.sleep(0.1)
            turns += not ledger.availability.away
        assert turns == 0, "a heartbeat says nothing about a locked table"
        assert ledger.availability.problem is not None
        assert "locked" in ledger.availability.problem
        assert not any(task.done() for task in claiming)
    outcomes = await asyncio.wait_for(asyncio.gather(*claiming), 10)
    assert {type(outcome) for outcome in outcomes} == {Claimed}
    await asyncio.wait_for(ledger.availability.wait_until_back(), 5)


@pytest.mark.parametrize("table", ["requests", "reports", "lanes"])
async def test_settles_with_reports_wait_for_a_locked_table(ledger: Ledger, dsn: str, table: str) -> None:
    asked = ask()
    claim = await claimed(ledger, asked)
    async with locked(dsn, table):
        settling = asyncio.create_task(ledger.requests.settle(claim, failed(report_on(asked))))
        await asyncio.wait_for(ledger.availability.wait_until_away(), 5)
        await asyncio.sleep(LOCKED_S)
        assert ledger.availability.away
        assert not settling.done()
    assert await asyncio.wait_for(settling, 10)


async def test_a_locked_table_of_workers_stops_the_process_and_is_no_bug(
    ledger: Ledger, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with locked(dsn, "workers"):
        await asyncio.wait_for(ledger.availability.wait_until_away(), 5)
        await asyncio.sleep(1)
        assert ledger.availability.away
    await asyncio.wait_for(ledger.availability.wait_until_back(), 5)
    assert "heartbeat-failed" not in capsys.readouterr().err


async def test_calls_that_are_not_batched_raise_ledger_away_for_a_lock(ledger: Ledger, dsn: str) -> None:
    async with locked(dsn, "requests"):
        for call in (ledger.verifications.due(1), ledger.events.due(1), ledger.lookups.open_systems()):
            with pytest.raises(LedgerAway):
                await call


async def test_one_outage_is_one_line(
    ledger: Ledger, dsn: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    # The logger itself is recorded: the level of the log is a setting that other tests change.
    recorder = SimpleNamespace(
        info=lambda event, **_: events.append(event), warning=lambda event, **_: events.append(event)
    )
    monkeypatch.setattr("broker.ledger.postgres.reachability.log", recorder)
    async with locked(dsn, "requests"):
        claiming = asyncio.create_task(ledger.requests.claim(ask()))
        await asyncio.sleep(LOCKED_S)
    await claiming
    await ledger.availability.wait_until_back()
    await poll(lambda: "ledger-back" in events, what="the line that says that the ledger is back")
    assert events == ["ledger-away", "ledger-back"]
    assert "Traceback" not in capsys.readouterr().err


async def test_a_locked_row_is_waited_for_and_stops_no_other(ledger: Ledger, dsn: str, sql: Sql) -> None:
    claims = [await claimed(ledger, ask()) for _ in range(3)]
    async with sql.transaction():
        await sql.execute("SELECT FROM requests WHERE request_id = $1 FOR UPDATE", claims[0].request_id)
        settles = [asyncio.create_task(ledger.requests.settle(claim, ending())) for claim in claims]
        assert all(await asyncio.gather(*settles[1:]))
        await asyncio.sleep(LOCKED_S)
        assert not ledger.availability.away
        assert not settles[0].done()
    assert await asyncio.wait_for(settles[0], 10)


async def test_a_request_whose_deadline_passes_at_a_locked_table_is_recorded_as_expired(
    ledger: Ledger, dsn: str, sql: Sql
) -> None:
    execution, requests = execution_on(ledger, dsn), [routed(within=1.0) for _ in range(5)]
    async with locked(dsn, "requests"):
        running = [asyncio.create_task(execution.run(request)) for request in requests]
        await asyncio.sleep(LOCKED_S)
        assert not any(task.done() for task in running), "expired is told once it is recorded"
    handled = await asyncio.wait_for(asyncio.gather(*running), 10)
    assert {each.outcome for each in handled} == {"expired"}
    for request in requests:
        stored = await row(sql, request.message.request_id)
        assert (stored["state"], stored["status"]) == ("settled", "expired")


async def test_a_request_that_comes_too_late_is_told_expired_only_when_that_is_recorded(
    ledger: Ledger, dsn: str, sql: Sql
) -> None:
    request = routed(within=-1.0)
    async with locked(dsn, "requests"):
        running = asyncio.create_task(execution_on(ledger, dsn).run(request))
        await asyncio.sleep(LOCKED_S)
        assert not running.done()
    assert (await running).outcome == "expired"
    assert (await row(sql, request.message.request_id))["status"] == "expired"


async def test_a_request_that_the_ledger_refuses_and_does_not_know_is_failed_not_uncertain(
    ledger: Ledger, dsn: str, sql: Sql
) -> None:
    request = routed(traceparent="\0")
    handled = await execution_on(ledger, dsn).run(request)
    assert handled.outcome == Status.FAILED
    assert handled.settlement is not None
    assert handled.settlement.ours
    assert json.loads(handled.replacements[0].body)["fejlkode"] == 4  # type: ignore[union-attr]  # an answer
    assert await row(sql, request.message.request_id) is None


async def test_a_request_that_the_ledger_refuses_and_knows_is_not_called_failed(
    ledger: Ledger, dsn: str
) -> None:
    request = routed(traceparent="\0")
    earlier = await claimed(ledger, ask(request_id=request.message.request_id))
    with pytest.raises(RowRefused):
        await execution_on(ledger, dsn).run(request)
    assert earlier


async def test_the_tables_whose_locks_count_are_tables(opened: Openers) -> None:
    assert set(TABLES) <= set(metadata.tables)


@pytest.mark.parametrize(
    ("sqlstate", "raised"),
    [(state, RowRefused) for state in ("22021", "23514", "54000")]
    + [(state, RowBusy) for state in ("40001", "40P01", "55P03")]
    + [(state, LedgerAway) for state in ("08006", "53100", "57014", "25006", "42501", "P0001")],
)
async def test_the_sqlstate_decides_whose_fault_it_is(dsn: str, sqlstate: str, raised: type) -> None:
    availability = Availability()
    connection = LazyConnection(Server(dsn, 5), availability)
    raising = f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$"
    with pytest.raises(LedgerAway if raised is not RowRefused else RowRefused) as caught:
        await connection.run(lambda c: c.execute(raising))
    assert type(caught.value) is raised
    assert availability.away is (raised is LedgerAway)
    await connection.close()
