"""Lanes as rows that all processes share: parked, probed, paused, and hand-overs reverted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest

from broker.lanes.events import Paused, Resumed
from broker.lanes.lane import LaneState
from broker.ledger.ledger import Ledger
from broker.ledger.postgres.connections import Pool, Server
from broker.ledger.postgres.reachability import Availability
from broker.ledger.reports.handover import allowance
from broker.ledger.reports.lanes import LaneLookups
from config.settings import Settings
from tests.ledger.report_support import (
    NORTH,
    SOUTH,
    delivering,
    down,
    handed_over,
    judged,
    lane_row,
    refused,
    report_row,
    report_settings,
    reported,
    state_of,
    tell_lane,
    travel,
    web_page,
    wrong_address,
)
from tests.ledger.support import Openers, Sql


@pytest.fixture
def rules(dsn: str) -> Settings:
    return report_settings(dsn)


@pytest.fixture
async def ledger(opened: Openers, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """With the rules of report_settings."""
    monkeypatch.setattr("tests.ledger.conftest.settings_for", report_settings)
    return await opened()


async def fails(ledger: Ledger, rules: Settings, error: Exception | None) -> UUID:
    report_id = await reported(ledger)
    claim = await delivering(ledger, report_id)
    assert await ledger.reports.finish(claim, judged(claim, error, rules))
    return report_id


async def state(sql: Sql, supplier: str = NORTH) -> str:
    return str((await lane_row(sql, supplier))["state"])


async def test_a_wrong_address_keeps_the_report_uncounted_and_parks_the_lane(
    ledger: Ledger, rules: Settings, sql: Sql
) -> None:
    report_id = await fails(ledger, rules, wrong_address())
    kept = await report_row(sql, report_id)
    assert (kept["state"], kept["retries"], kept["cause_class"]) == ("waiting", 0, "setup")
    lane = await lane_row(sql)
    assert (lane["state"], lane["parked_until"] is not None, lane["attention"] is not None) == (
        "parked",
        True,
        True,
    )
    assert await handed_over(ledger) == []


async def test_failures_in_a_row_park_the_lane_and_an_answer_forgets_them(
    ledger: Ledger, rules: Settings, sql: Sql
) -> None:
    for error in (down(), web_page(), refused(), down(), down()):
        await fails(ledger, rules, error)
    assert await state(sql) == "open"
    await fails(ledger, rules, down())
    assert await state(sql) == "parked"


async def test_reports_handed_over_on_a_lane_that_parks_wait_again_uncounted(
    ledger: Ledger, rules: Settings, sql: Sql
) -> None:
    others = [await reported(ledger) for _ in range(3)]
    south = await reported(ledger, supplier=SOUTH)
    report_id = await reported(ledger)
    claim = await delivering(ledger, report_id)
    number = (await report_row(sql, others[0]))["number"]
    await ledger.reports.finish(claim, judged(claim, wrong_address(), rules))
    for other in others:
        row = await report_row(sql, other)
        assert (row["state"], row["attempts"], row["retries"]) == ("waiting", 0, 0)
    assert await ledger.reports.claim(others[0], number) is None
    assert await state_of(sql, south) == "handed"


async def test_a_lane_that_was_asked_to_wait_hands_nothing_over_before(
    ledger: Ledger, rules: Settings, sql: Sql
) -> None:
    other = await reported(ledger)
    report_id = await fails(ledger, rules, down(retry_after=100, status=429))
    assert (await report_row(sql, report_id))["retries"] == 0
    await tell_lane(sql, rules, Resumed("ann", "I want it now"))
    await travel(sql, 98)
    assert await handed_over(ledger) == []
    await travel(sql, 101)
    [probe] = await handed_over(ledger)
    assert (probe.probe, probe.report_id) == (True, other)


async def test_a_parked_lane_sends_one_probe_and_an_answer_opens_it(
    ledger: Ledger, rules: Settings, sql: Sql
) -> None:
    for _ in range(4):
        await reported(ledger)
    kept = await fails(ledger, rules, wrong_address())
    await travel(sql, 61)
    [probe] = await handed_over(ledger)
    assert (probe.probe, await state(sql)) == (True, "probing")
    assert await handed_over(ledger) == []
    claim = await ledger.reports.claim(probe.report_id, probe.number)
    assert claim
    assert claim.probe
    assert await sql.fetchval("SELECT probe FROM attempts WHERE report_id = $1", claim.report_id)
    await ledger.reports.finish(claim, judged(claim, refused(), rules))
    assert await state(sql) == "open"
    assert kept in {one.report_id for one in await handed_over(ledger)}


async def test_a_failed_probe_uses_up_no_retry_and_the_next_is_another_report(
    ledger: Ledger, rules: Settings, sql: Sql
) -> None:
    reports = {await reported(ledger) for _ in range(2)} | {await fails(ledger, rules, wrong_address())}
    probed: list[UUID] = []
    for number in range(1, 5):
        await travel(sql, 1000 * number)
        [probe] = await handed_over(ledger)
        probed.append(probe.report_id)
        claim = await ledger.reports.claim(probe.report_id, probe.number)
        assert claim
        await ledger.reports.finish(claim, judged(claim, down(), rules))
        assert await state(sql) == "parked"
    assert all(one != next_one for one, next_one in pairwise(probed))
    assert set(probed) == reports
    assert await sql.fetchval("SELECT sum(retries) FROM reports") == 0


async def test_two_processes_send_one_probe(opened: Openers, rules: Settings, sql: Sql) -> None:
    one, other = await opened(), await opened()
    for _ in range(5):
        await reported(one)
    await fails(one, rules, wrong_address())
    await travel(sql, 100)
    rounds = await asyncio.gather(*(handed_over(each) for _ in range(3) for each in (one, other)))
    assert sum(len(handed) for handed in rounds) == 1


async def test_a_paused_lane_keeps_everything_until_a_person_resumes_it(
    ledger: Ledger, rules: Settings, sql: Sql
) -> None:
    report_id = await reported(ledger)
    claim = await delivering(ledger, report_id)
    handed = await reported(ledger)
    await handed_over(ledger)
    lane = await tell_lane(sql, rules, Paused("ann", "their release"))
    assert (lane.state, lane.by, lane.reason) == (LaneState.PAUSED, "ann", "their release")
    assert await state_of(sql, handed) == "waiting"
    assert await ledger.reports.finish(claim, judged(claim, None, rules))
    assert await state(sql) == "paused"
    await travel(sql, 86_400)
    assert await handed_over(ledger) == []
    assert (await tell_lane(sql, rules, Resumed("ben", "done"))).state is LaneState.OPEN
    assert [one.report_id for one in await handed_over(ledger)] == [handed]


async def test_one_bad_lane_does_not_hold_the_others(ledger: Ledger, rules: Settings, sql: Sql) -> None:
    await fails(ledger, rules, wrong_address())
    locked = sql.transaction()
    await locked.start()
    await sql.execute("SELECT FROM lanes WHERE supplier = $1 FOR UPDATE", NORTH)
    south = await reported(ledger, supplier=SOUTH)
    assert [one.report_id for one in await handed_over(ledger)] == [south]
    await locked.rollback()


async def test_lanes_are_listed_with_the_number_of_their_reports(ledger: Ledger, dsn: str) -> None:
    for _ in range(3):
        await reported(ledger)
    claim = await delivering(ledger, await reported(ledger))
    waiting = await reported(ledger)
    pool = Pool(Server(dsn, 2), Availability(), 1)
    shown = {row.lane.supplier: row for row in await LaneLookups(pool).all()}[NORTH]
    await pool.close()
    assert (shown.lane.supplier, shown.lane.state) == (NORTH, LaneState.OPEN)
    assert (shown.waiting, shown.handed, shown.delivering) == (1, 3, 1)
    assert shown.oldest_due_at is not None
    assert waiting != claim.report_id


async def test_a_rate_is_a_number_of_starts_in_a_time() -> None:
    now = datetime(2031, 1, 1, tzinfo=UTC)
    cases = [(0.0, 10.0, 1), (1.0, 10.0, 11), (-0.5, 10.0, 0), (0.05, 10.0, 1), (0.5, 1.0, 1), (2.0, 0.5, 2)]
    for passed, rate, starts in cases:
        assert allowance(now - timedelta(seconds=passed), now, rate) == starts
