"""The overview: problems, figures, charts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from markupsafe import escape

from broker.console.charts import columns, spark
from broker.console.pages.overview import by_cause, by_mood
from broker.ledger.operators.flow import Flow, FlowStep
from broker.ledger.operators.operations import Operations
from broker.ops import Waiting
from tests.console.browser import Browser
from tests.ledger.dead import BO, dead_booking, dead_reports
from tests.ledger.support import Sql

NOW = datetime(2031, 1, 1, tzinfo=UTC)


async def test_the_overview_lists_problems_and_lanes(
    browser: Browser, operations: Operations, sql: Sql
) -> None:
    browser.log_in("viewer")
    await dead_reports(sql, 3, cause="rejected")
    await operations.lanes.pause("nordsoft", BO)
    page = await browser.get("/")
    assert page.status == 200
    for words in (
        "no process is ready",
        "lane nordsoft is paused",
        "3 dead letters in the last hour",
        "rejected",
    ):
        assert words in page.text
    assert 'href="/suppliers/nordsoft"' in page.text
    assert escape(BO.reason) in page.text


async def test_an_empty_ledger_has_a_page_too(browser: Browser) -> None:
    browser.log_in("viewer")
    for path in ("/", "/?range=24h", "/?range=14d", "/?range=nonsense"):
        page = await browser.get(path)
        assert (page.status, "No broker runs here" in page.text) == (200, True)


async def test_the_overview_says_that_all_is_well(browser: Browser, sql: Sql) -> None:
    browser.log_in("viewer")
    await sql.execute(
        "INSERT INTO workers (id, pid, started_at, heartbeat_at, unbroken_since, ready, host, expected, consuming)"
        " SELECT gen_random_uuid(), 7, now(), now() + interval '1 hour', now(), true, 'broker-1', 9, 9"
    )
    await sql.execute("INSERT INTO last_looks VALUES ('conservation', now(), '{\"gaps\": 0}')")
    page = await browser.get("/")
    assert "All is well." in page.text
    assert "9 of 9" in page.text


async def test_answers_are_charted_by_status(browser: Browser, sql: Sql) -> None:
    browser.log_in("viewer")
    await sql.execute(
        "INSERT INTO flow SELECT date_trunc('minute', now()) - interval '10 minutes', gen_random_uuid(), 'answer', l, 5"
        " FROM (VALUES ('done'), ('failed'), ('nonsense')) AS x (l)"
    )
    page = await browser.get("/")
    assert "done 5, failed 5, nonsense 5" in page.text
    assert page.text.count('<path class="good"') == 1
    assert page.text.count('<path class="bad"') == 1
    assert "style=" not in page.text


async def test_gaps_and_uncertain_bookings_link_to_their_trace(browser: Browser, sql: Sql) -> None:
    browser.log_in("viewer")
    gap, request_id = uuid4(), await dead_booking(sql)
    await sql.execute("UPDATE requests SET state = 'uncertain', settled_at = NULL")
    figures = {
        "gaps": 1,
        "kinds": {"report-missing": 1},
        "named": [{"gap": "report-missing", "id": str(gap)}],
    }
    await sql.execute("INSERT INTO last_looks VALUES ('conservation', now(), $1)", json.dumps(figures))
    page = await browser.get("/")
    for words in ("report-missing", f"/trace/{gap}", f"/trace/{request_id}", "1 booking is uncertain"):
        assert words in page.text


def test_an_unknown_status_is_drawn_as_bad() -> None:
    steps = (FlowStep(NOW, answers={"done": 2, "new": 1}), FlowStep(NOW, answers={"refused": 4}))
    assert by_mood(Flow(1, steps)) == {"good": [2, 0], "plain": [0, 4], "warn": [0, 0], "bad": [1, 0]}


def test_waiting_reports_are_summed_by_cause() -> None:
    def row(supplier: str, cause: str | None, count: int, hours: int) -> Waiting:
        at = NOW - timedelta(hours=hours)
        return Waiting(supplier, "waiting", cause, count, at, at)

    rows = [row("b", "unavailable", 2, 1), row("a", "unavailable", 3, 5), row("a", None, 1, 0)]
    [first, second] = by_cause(rows)
    assert (first.cause, first.count, first.suppliers) == ("unavailable", 5, ("a", "b"))
    assert first.oldest_at == NOW - timedelta(hours=5)
    assert (second.cause, second.count) == (None, 1)


class TestCharts:
    def test_columns_stand_on_each_other_and_the_highest_fills_the_height(self) -> None:
        drawn = columns({"good": [30, 0], "bad": [30, 15]}, "a label")
        assert 'd="M0 30.0h3v30.0h-3z"' in drawn
        assert 'd="M0 0.0h3v30.0h-3zM4 45.0h3v15.0h-3z"' in drawn
        assert drawn.count("<path") == 2

    @pytest.mark.parametrize("parts", [{"good": []}, {"good": [0, 0]}, {"good": [0], "bad": [0]}])
    def test_without_counts_a_chart_is_empty(self, parts: dict[str, list[int]]) -> None:
        assert "<path" not in columns(parts, "a label")

    def test_the_smallest_count_is_visible(self) -> None:
        assert "v1.5h" in columns({"good": [100_000, 1]}, "a label")

    def test_labels_are_escaped(self) -> None:
        assert "<b>" not in columns({"good": [1]}, '"<b>')

    def test_a_sparkline_has_a_text_label(self) -> None:
        assert 'aria-label="6 in the last 24 hours, at most 4 an hour"' in spark((0, 2, 4))
        assert "<path" not in spark((0, 0))
