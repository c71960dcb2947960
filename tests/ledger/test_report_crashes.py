"""Reports whose process died, froze or lost PostgreSQL during the delivery."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from broker.errors import LedgerAway
from broker.lanes.retry_policy import x_request_id
from broker.ledger.ledger import Ledger
from config.settings import Settings
from tests.ledger.lossy import LossyProxy
from tests.ledger.report_support import (
    NORTH,
    delivering,
    handed_over,
    judged,
    lane_row,
    report_row,
    report_settings,
    reported,
    state_of,
    travel,
    wrong_address,
)
from tests.ledger.support import Openers, Sql, freeze
from tests.support import poll


@pytest.fixture
def rules(dsn: str) -> Settings:
    return report_settings(dsn)


@pytest.fixture
async def opened(opened: Openers, monkeypatch: pytest.MonkeyPatch) -> Openers:
    """With the rules of report_settings."""
    monkeypatch.setattr("tests.ledger.conftest.settings_for", report_settings)
    return opened


async def swept(ledger: Ledger) -> int:
    """Sweep until a row was freed."""
    freed: int = await poll(ledger.reports.sweep, what="a sweep that frees something")
    return freed


async def test_a_report_that_no_process_claimed_waits_again_uncounted(ledger: Ledger, sql: Sql) -> None:
    report_id = await reported(ledger)
    await handed_over(ledger)
    await travel(sql, 50)
    assert await ledger.reports.sweep() == 0
    await travel(sql, 70)
    assert await ledger.reports.sweep() == 1
    row = await report_row(sql, report_id)
    assert (row["state"], row["crashes"], row["attempts"]) == ("waiting", 0, 0)


async def test_a_delivery_in_hand_is_never_swept(ledger: Ledger, sql: Sql) -> None:
    report_id = await reported(ledger)
    claim = await delivering(ledger, report_id)
    await travel(sql, 10_000)
    assert await ledger.reports.sweep() == 0
    assert await state_of(sql, report_id) == "delivering"
    assert claim


async def test_a_delivery_whose_task_died_is_a_crash_at_once(ledger: Ledger, sql: Sql) -> None:
    report_id = await reported(ledger)
    claim = await delivering(ledger, report_id)
    first = claim.x_request_id
    with ledger.reports.until_end(claim):
        assert await ledger.reports.sweep() == 0
    assert await ledger.reports.sweep() == 1
    row = await report_row(sql, report_id)
    assert (row["state"], row["crashes"], row["unanswered"]) == ("waiting", 1, True)
    again = await delivering(ledger, report_id)
    assert (again.x_request_id, again.unanswered, again.attempt) == (first, True, 2)


async def test_a_delivery_of_a_process_that_died_is_taken_back_by_another(opened: Openers, sql: Sql) -> None:
    dying, living = await opened(), await opened()
    report_id = await reported(dying)
    claim = await delivering(dying, report_id)
    assert await living.reports.sweep() == 0
    freeze(dying)
    assert await swept(living) == 1
    assert await state_of(sql, report_id) == "waiting"
    assert claim


async def test_three_crashes_make_a_dead_letter(ledger: Ledger, sql: Sql) -> None:
    report_id = await reported(ledger)
    for _ in range(3):
        with ledger.reports.until_end(await delivering(ledger, report_id)):
            pass
        assert await ledger.reports.sweep() == 1
    dead = await report_row(sql, report_id)
    assert (dead["state"], dead["cause"], dead["crashes"], dead["attempts"]) == ("dead", "crash", 3, 3)
    [event] = await ledger.reports.events.due(10)
    assert (event.outcome, event.cause) == ("dead", "crash")


async def test_a_frozen_process_that_comes_back_finishes_nothing(
    opened: Openers, rules: Settings, sql: Sql
) -> None:
    frozen, living = await opened(), await opened()
    report_id = await reported(frozen)
    claim = await delivering(frozen, report_id)
    freeze(frozen)
    await swept(living)
    second = await delivering(living, report_id)
    assert not await frozen.reports.finish(claim, judged(claim, wrong_address(), rules))
    assert (await lane_row(sql))["state"] == "open"
    assert await living.reports.finish(second, judged(second, None, rules))
    assert await state_of(sql, report_id) == "delivered"
    results = await sql.fetch("SELECT number, applied FROM attempt_results ORDER BY number")
    assert [tuple(result) for result in results] == [(1, False), (2, True)]


async def test_a_probe_that_crashed_parks_the_lane_again(opened: Openers, rules: Settings, sql: Sql) -> None:
    ledger = await opened()
    claim = await delivering(ledger, await reported(ledger))
    await ledger.reports.finish(claim, judged(claim, wrong_address(), rules))
    await travel(sql, 100)
    with ledger.reports.until_end(await delivering(ledger, claim.report_id)):
        pass
    assert await ledger.reports.sweep() == 2
    lane = await lane_row(sql)
    assert (lane["state"], lane["probe"], lane["last_probe"]) == ("parked", None, claim.report_id)


async def test_a_probe_past_its_limit_parks_the_lane_again(
    opened: Openers, rules: Settings, sql: Sql
) -> None:
    ledger = await opened()
    claim = await delivering(ledger, await reported(ledger))
    await ledger.reports.finish(claim, judged(claim, wrong_address(), rules))
    await travel(sql, 100)
    probe = await delivering(ledger, claim.report_id)
    await travel(sql, 180)
    assert await ledger.reports.sweep() == 0
    await travel(sql, 200)
    assert await ledger.reports.sweep() == 1
    assert (await lane_row(sql))["state"] == "parked"
    assert await ledger.reports.finish(probe, judged(probe, None, rules))
    assert (await lane_row(sql))["state"] == "open"


# -- PostgreSQL away -----------------------------------------------------------------------------------------------


@pytest.fixture
async def proxied(dsn: str, opened: Openers) -> Any:
    async with LossyProxy(dsn) as lossy:
        yield lossy, await opened(dsn=lossy.dsn)


async def test_a_claim_whose_answer_got_lost_is_recognised(proxied: Any, sql: Sql) -> None:
    proxy, ledger = proxied
    # Connects, and prepares the statements.
    await delivering(ledger, await reported(ledger))
    report_id = await reported(ledger)
    handed = {one.report_id: one.number for one in await handed_over(ledger)}
    proxy.lose_answers()
    claiming = asyncio.create_task(ledger.reports.claim(report_id, handed[report_id]))
    await asyncio.sleep(0.2)
    proxy.recover()
    claim = await claiming
    assert claim
    assert claim.attempt == 1
    assert await sql.fetchval("SELECT count(*) FROM attempts WHERE report_id = $1", report_id) == 1


async def test_a_finish_waits_for_postgresql_and_is_written_once(
    proxied: Any, rules: Settings, sql: Sql
) -> None:
    proxy, ledger = proxied
    report_id: UUID = await reported(ledger)
    claim = await delivering(ledger, report_id)
    proxy.refusing = True
    proxy.cut()
    finishing = asyncio.create_task(ledger.reports.finish(claim, judged(claim, wrong_address(), rules)))
    await asyncio.sleep(0.2)
    assert not finishing.done()
    proxy.recover()
    assert await finishing
    assert (await report_row(sql, report_id))["state"] == "waiting"


@pytest.mark.parametrize("statements", range(6))
async def test_a_finish_interrupted_at_any_statement_is_recognised(
    proxied: Any, rules: Settings, sql: Sql, statements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks before or after any statement, including the COMMIT."""
    proxy, ledger = proxied
    report_id: UUID = await reported(ledger)
    claim = await delivering(ledger, report_id)
    asyncio.get_running_loop().call_later(0.002 * statements, proxy.lose_answers)
    asyncio.get_running_loop().call_later(0.15, proxy.recover)
    assert await ledger.reports.finish(claim, judged(claim, wrong_address(), rules))
    row = await report_row(sql, report_id)
    assert (row["state"], row["attempts"]) == ("waiting", 1)
    assert await sql.fetchval("SELECT count(*) FROM attempt_results") == 1
    assert (await lane_row(sql, NORTH))["park_step"] == 1


class ForgetfulPool:
    """Commits, and the first time raises LedgerAway after the COMMIT."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._forgot = False

    async def run(self, work: Any) -> Any:
        result = await self._pool.run(work)
        if not self._forgot:
            self._forgot = True
            raise LedgerAway("the connection broke after the commit")
        return result


async def test_a_claim_whose_commit_was_interrupted_is_one_attempt(
    ledger: Ledger, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_id = await reported(ledger)
    monkeypatch.setattr(ledger.reports._attempts, "_pool", ForgetfulPool(ledger.reports._attempts._pool))
    claim = await delivering(ledger, report_id)
    assert (claim.attempt, claim.owner, claim.x_request_id) == (1, ledger.owner, x_request_id(report_id, 1))
    assert await sql.fetchval("SELECT count(*) FROM attempts") == 1


async def test_a_finish_whose_commit_was_interrupted_changes_the_lane_once(
    ledger: Ledger, rules: Settings, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await delivering(ledger, await reported(ledger))
    monkeypatch.setattr(ledger.reports._results, "_pool", ForgetfulPool(ledger.reports._results._pool))
    assert await ledger.reports.finish(claim, judged(claim, wrong_address(), rules))
    assert await sql.fetchval("SELECT count(*) FROM attempt_results") == 1
    assert (await lane_row(sql))["park_step"] == 1
