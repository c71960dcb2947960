"""PostgreSQL killed, hanging, cut off, and connections lost during COMMIT."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from broker.errors import LedgerAway
from broker.ledger.ledger import Ledger
from broker.ledger.model import Claimed, ClaimedElsewhere, ClaimRequest, Settled, TakenOver
from broker.ledger.postgres.versions import bring_up_to_date
from scripts.postgres import PostgresNode
from tests.ledger.lossy import LossyProxy
from tests.ledger.support import Openers, Sql, ask, claimed, ending, freeze, row, taken_over, uncertain
from tests.support import poll


@pytest.fixture
async def proxy(dsn: str) -> AsyncIterator[LossyProxy]:
    async with LossyProxy(dsn) as lossy:
        yield lossy


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PostgresNode]:
    """A PostgreSQL server for this test alone, to be killed and frozen."""
    with PostgresNode(tmp_path / "postgres") as own:
        yield own


@pytest.fixture
async def own_dsn(node: PostgresNode) -> str:
    await bring_up_to_date(node.dsn)
    return node.dsn


async def known(sql: Sql, what: str, *values: Any) -> None:
    """Wait until a row that matches is committed."""

    async def there() -> Any:
        return await sql.fetchval(f"SELECT count(*) FROM requests WHERE {what}", *values)  # noqa: S608

    await poll(there, what=what)


async def warmed(ledger: Ledger) -> None:
    """Connect and prepare the statements: each is then one message, and only its answer can get lost."""
    await ledger.requests.settle(await claimed(ledger, ask()), ending())


async def unbroken_for_an_hour(sql: Sql, ledger: Ledger) -> None:
    since = "UPDATE workers SET unbroken_since = clock_timestamp() - interval '1 hour' WHERE id = $1"
    await sql.execute(since, ledger.owner)


async def left_by_the_dead(opened: Openers, *asks: ClaimRequest) -> None:
    dead = await opened()
    _held = [await claimed(dead, wanted) for wanted in asks]
    await dead._close()


async def test_a_claim_whose_commit_was_interrupted_is_recognised(
    opened: Openers, proxy: LossyProxy, sql: Sql
) -> None:
    ledger = await opened(dsn=proxy.dsn)
    await warmed(ledger)
    proxy.lose_answers()
    claiming = asyncio.create_task(ledger.requests.claim(ask()))
    await known(sql, "state = 'running'")
    proxy.recover()
    outcome = await claiming
    assert isinstance(outcome, Claimed)
    assert (outcome.claim.epoch, outcome.claim.owner) == (1, ledger.owner)
    assert await ledger.requests.settle(outcome.claim, ending())


async def test_a_takeover_whose_commit_was_interrupted_does_not_become_new(
    opened: Openers, proxy: LossyProxy, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim taken over is looked up, never begun: otherwise the booking could be made twice."""
    ledger = await opened(dsn=proxy.dsn)
    await warmed(ledger)
    warm, wanted = ask(), ask()
    await left_by_the_dead(opened, warm, wanted)
    assert isinstance(await ledger.requests.claim(warm), TakenOver)
    take_over = ledger.requests._claims._take_over

    async def unheard(*arguments: Any) -> Any:
        proxy.lose_answers()
        return await take_over(*arguments)

    monkeypatch.setattr(ledger.requests._claims, "_take_over", unheard)
    claiming = asyncio.create_task(ledger.requests.claim(wanted))
    await known(sql, "epoch = 2 AND request_id <> $1", warm.request_id)
    monkeypatch.undo()
    proxy.recover()
    outcome = await claiming
    assert isinstance(outcome, TakenOver)
    assert (outcome.claim.epoch, outcome.claim.dead_owners) == (2, 0)


@pytest.mark.parametrize("end", [ending(), uncertain()], ids=["final", "uncertain"])
async def test_a_settle_whose_commit_was_interrupted_is_recognised(
    opened: Openers, proxy: LossyProxy, sql: Sql, end: object
) -> None:
    ledger = await opened(dsn=proxy.dsn)
    await warmed(ledger)
    claim = await claimed(ledger, ask())
    proxy.lose_answers()
    settling = asyncio.create_task(ledger.requests.settle(claim, end))  # type: ignore[arg-type]  # parametrize
    await known(sql, "request_id = $1 AND state <> 'running'", claim.request_id)
    proxy.recover()
    assert await settling


async def test_a_record_whose_commit_was_interrupted_is_recognised(
    opened: Openers, proxy: LossyProxy, sql: Sql
) -> None:
    ledger = await opened(dsn=proxy.dsn)
    await warmed(ledger)
    proxy.lose_answers()
    wanted = ask()
    recording = asyncio.create_task(ledger.requests.record(wanted, ending(answer=b"mine")))
    await known(sql, "request_id = $1", wanted.request_id)
    proxy.recover()
    outcome = await recording
    assert isinstance(outcome, Settled)
    assert outcome.ending.answer == b"mine"


async def test_a_settle_that_was_overtaken_meanwhile_is_not_recognised(
    opened: Openers, proxy: LossyProxy
) -> None:
    ledger, other = await opened(dsn=proxy.dsn), await opened()
    wanted = ask()
    claim = await claimed(ledger, wanted)
    proxy.refusing = True
    proxy.cut()
    settling = asyncio.create_task(ledger.requests.settle(claim, ending()))
    await taken_over(other, wanted)
    proxy.recover()
    assert await settling is None


async def test_postgresql_killed_during_claims_loses_and_doubles_none(
    opened: Openers, node: PostgresNode, own_dsn: str
) -> None:
    ledger = await opened(dsn=own_dsn, batch_size=5)
    wanted = [ask() for _ in range(300)]
    claiming = [asyncio.create_task(ledger.requests.claim(w)) for w in wanted]
    await poll(lambda: any(task.done() for task in claiming), what="the first claims")
    await asyncio.to_thread(node.kill)
    await asyncio.to_thread(node.start)
    outcomes = await asyncio.gather(*claiming)
    assert {type(outcome) for outcome in outcomes} == {Claimed}
    claims = [outcome.claim for outcome in outcomes if isinstance(outcome, Claimed)]
    settled = await asyncio.gather(*(ledger.requests.settle(claim, ending()) for claim in claims))
    assert all(settled)
    connection = await asyncpg.connect(own_dsn)
    assert await connection.fetchval("SELECT count(*) FROM requests WHERE state = 'settled'") == 300
    await connection.close()


async def test_a_server_that_hangs_is_away_within_its_bound_and_everything_waits(
    opened: Openers, node: PostgresNode, own_dsn: str
) -> None:
    ledger = await opened(dsn=own_dsn, statement_timeout_seconds=0.5)
    everyone = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
    for process in everyone:
        process.suspend()
    try:
        claiming = asyncio.create_task(ledger.requests.claim(ask()))
        await asyncio.wait_for(ledger.availability.wait_until_away(), 10)
        with pytest.raises(LedgerAway):
            await ledger.verifications.due(1)
        assert not claiming.done()
    finally:
        for process in everyone:
            os.kill(process.pid, signal.SIGCONT)
    assert isinstance(await claiming, Claimed)
    await ledger.availability.wait_until_back()


async def test_postgresql_away_for_longer_than_the_threshold_makes_no_owner_dead(
    opened: Openers, node: PostgresNode, own_dsn: str
) -> None:
    one, other = await opened(dsn=own_dsn), await opened(dsn=own_dsn)
    wanted = ask()
    claim = await claimed(one, wanted)
    # By then both have an unbroken heartbeat, so that both may judge.
    await asyncio.sleep(1.2)
    await asyncio.to_thread(node.kill)
    await one.availability.wait_until_away()
    await asyncio.sleep(1.5)
    await asyncio.to_thread(node.start)
    asked = asyncio.create_task(other.requests.claim(wanted))
    assert isinstance(await asked, ClaimedElsewhere)
    for _ in range(20):
        await asyncio.sleep(0.1)
        assert isinstance(await other.requests.claim(wanted), ClaimedElsewhere)
    assert await one.requests.settle(claim, ending())


async def test_a_process_judges_others_only_after_an_unbroken_heartbeat(opened: Openers, sql: Sql) -> None:
    frozen = await opened(owner_dead_after_seconds=3, heartbeat_seconds=0.5)
    wanted = ask()
    _held = await claimed(frozen, wanted)
    freeze(frozen)
    # Given an owner that is certainly dead
    await sql.execute("UPDATE workers SET heartbeat_at = clock_timestamp() - interval '1 hour'")
    young = await opened(owner_dead_after_seconds=3, heartbeat_seconds=0.5)
    assert isinstance(await young.requests.claim(wanted), ClaimedElsewhere)
    # When the judge's own heartbeat had a gap, its threshold begins again
    await unbroken_for_an_hour(sql, young)
    await sql.execute(
        "UPDATE workers SET heartbeat_at = clock_timestamp() - interval '2 s' WHERE id = $1", young.owner
    )
    await young.heartbeat.beat()
    assert isinstance(await young.requests.claim(wanted), ClaimedElsewhere)
    # Then, after a whole threshold, it takes over
    await unbroken_for_an_hour(sql, young)
    assert isinstance(await young.requests.claim(wanted), TakenOver)


async def test_a_process_with_an_old_heartbeat_takes_nothing_over(opened: Openers, sql: Sql) -> None:
    frozen, judge = await opened(), await opened()
    wanted = ask()
    _held = await claimed(frozen, wanted)
    freeze(frozen)
    freeze(judge)
    await asyncio.sleep(0.2)
    await unbroken_for_an_hour(sql, judge)
    await sql.execute("UPDATE workers SET heartbeat_at = clock_timestamp() - interval '1 hour'")
    assert isinstance(await judge.requests.claim(wanted), ClaimedElsewhere)


async def test_the_heartbeats_age_grows_while_nothing_is_committed(
    opened: Openers, proxy: LossyProxy
) -> None:
    ledger = await opened(dsn=proxy.dsn)
    await poll(lambda: ledger.heartbeat.age_s < 0.1, what="a young heartbeat")
    proxy.lose_answers()
    await poll(lambda: ledger.heartbeat.age_s > 1, what="an old heartbeat")
    proxy.recover()
    await poll(lambda: ledger.heartbeat.age_s < 0.3, what="a young heartbeat again")


async def test_calls_that_are_not_batched_raise_ledger_away(opened: Openers, proxy: LossyProxy) -> None:
    ledger = await opened(dsn=proxy.dsn)
    proxy.refusing = True
    proxy.cut()
    for call in (ledger.verifications.due(1), ledger.lookups.workers(), ledger.events.due(1)):
        with pytest.raises(LedgerAway):
            await call
    assert ledger.availability.away
    proxy.recover()
    await ledger.availability.wait_until_back()
    assert len(await ledger.lookups.workers()) == 1


async def test_the_table_of_workers_shows_alive_and_ready(opened: Openers) -> None:
    one, other = await opened(), await opened()
    await one.set_ready(True)
    await other._close()

    async def seen() -> Any:
        rows = {worker.id: worker for worker in await one.lookups.workers()}
        return rows[one.owner].ready and rows[one.owner].alive and not rows[other.owner].alive

    await poll(seen, what="the truth about both")


async def test_a_row_locked_by_another_transaction_does_not_stop_the_others(
    ledger: Ledger, dsn: str, sql: Sql
) -> None:
    claims = [await claimed(ledger, ask()) for _ in range(3)]
    async with sql.transaction():
        await sql.execute("SELECT FROM requests WHERE request_id = $1 FOR UPDATE", claims[0].request_id)
        settles = [asyncio.create_task(ledger.requests.settle(claim, ending())) for claim in claims]
        assert all(await asyncio.gather(*settles[1:]))
    assert await settles[0]


async def test_a_deadline_in_the_past_is_no_reason_to_refuse_a_claim(ledger: Ledger, sql: Sql) -> None:
    wanted = ask(deadline_at=datetime.now(UTC) - timedelta(seconds=5))
    await claimed(ledger, wanted)
    assert (await row(sql, wanted.request_id))["state"] == "running"
