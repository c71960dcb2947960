"""Pages of suppliers: figures, one lane and its history. Pause and resume are in test_acts.py."""

from __future__ import annotations

from uuid import uuid4

import pytest

from broker.console.rights import ROLES, Right
from broker.ledger.operators.operations import Operations
from tests.console.browser import Browser
from tests.ledger.dead import BO, dead_reports
from tests.ledger.support import Sql


async def attempts(sql: Sql, *milliseconds: int) -> None:
    for took in milliseconds:
        await sql.execute(
            "INSERT INTO attempt_results VALUES ($1, 1, now(), 'later', 'unavailable', 500, NULL, 'status 500', $2,"
            " true, true, $1, 'nordsoft')",
            uuid4(),
            took,
        )


async def test_every_supplier_is_listed_with_its_figures(
    browser: Browser, operations: Operations, sql: Sql
) -> None:
    browser.log_in("viewer")
    await dead_reports(sql, 4)
    await dead_reports(sql, supplier="sydsoft")
    await attempts(sql, 100, 300, 200)
    await sql.execute(
        "INSERT INTO flow VALUES (date_trunc('minute', now()), gen_random_uuid(), 'delivered', 'nordsoft', 3),"
        " (date_trunc('minute', now()), gen_random_uuid(), 'dead', 'nordsoft', 1)"
    )
    await operations.lanes.pause("sydsoft", BO)
    page = await browser.get("/suppliers")
    assert page.status == 200
    for words in ("200 ms", "290 ms", "75.0 %", "/dead?supplier=nordsoft", BO.reason):
        assert words in page.text
    assert page.text.index("/suppliers/sydsoft") < page.text.index("/suppliers/nordsoft"), (
        "the paused lane comes first"
    )


async def test_one_supplier_shows_its_attempts_and_how_its_lane_changed(
    browser: Browser, operations: Operations, sql: Sql
) -> None:
    browser.log_in("viewer")
    await dead_reports(sql)
    await attempts(sql, 100)
    await operations.lanes.pause("nordsoft", BO)
    await operations.lanes.resume("nordsoft", BO)
    page = await browser.get("/suppliers/nordsoft")
    assert page.status == 200
    for words in ("500, status 500", "100 ms", "How the lane changed", "by bo", "no attempt yet"):
        assert (words in page.text) == (words != "no attempt yet"), words
    assert page.text.count('<span class="what">') == 2


async def test_a_supplier_without_a_lane_has_no_page(browser: Browser) -> None:
    browser.log_in("viewer")
    page = await browser.get("/suppliers/nowhere")
    assert (page.status, "no lane nowhere is known" in page.text) == (409, True)
    assert "there is no lane yet" in (await browser.get("/suppliers")).text


@pytest.mark.parametrize("role", ROLES)
async def test_pause_and_resume_are_offered_to_users_with_the_right(
    browser: Browser, operations: Operations, sql: Sql, role: str
) -> None:
    browser.log_in(role)
    await dead_reports(sql)
    may = Right.LANES in ROLES[role]
    assert ("/suppliers/nordsoft/pause" in (await browser.get("/suppliers/nordsoft")).text) == may
    await operations.lanes.pause("nordsoft", BO)
    page = await browser.get("/suppliers/nordsoft")
    assert ("/suppliers/nordsoft/resume" in page.text, "/suppliers/nordsoft/pause" in page.text) == (
        may,
        False,
    )
