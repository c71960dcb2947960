"""Acts of the console against a real ledger."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from broker import ops
from broker.errors import LedgerAway
from broker.ledger.audit_log import OperatorLog
from broker.ledger.operators.operations import Operations
from broker.ops import Filter
from config.settings import DEFAULTS
from tests.console.browser import Browser, Page
from tests.console.conftest import Serve
from tests.ledger.dead import dead_booking, dead_reports, state_of, step
from tests.ledger.support import Sql
from tests.support import poll

HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')


def fields_on(page: Page) -> dict[str, str]:
    """The hidden fields of the act's form, the last form of the page."""
    form = page.text[page.text.rindex('<form class="act"') :]
    return {name: value for name, value in HIDDEN.findall(form) if name != "token"}


async def logged(sql: Sql) -> list[Any]:
    rows = await sql.fetch("SELECT actor, action, reason, subject FROM operator_log ORDER BY id")
    return [tuple(row) for row in rows]


@pytest.fixture
async def browser_with_directory(served: Serve, tmp_path: Path) -> Browser:
    """A browser for a console whose directory has a test citizen for birkelund only."""
    text = DEFAULTS.with_name("directory.toml").read_text()
    head = "[suppliers.birkelund]\n"
    assert head in text
    file = tmp_path / "directory.toml"
    file.write_text(text.replace(head, f'{head}test_cpr = "0101364999"\n'))
    browser: Browser = await served(directory=file)
    return browser


@pytest.fixture
async def operator(browser: Browser) -> Browser:
    return browser.log_in("operator")


class TestLanes:
    async def test_a_lane_is_paused_and_resumed_for_a_reason(self, operator: Browser, sql: Sql) -> None:
        await dead_reports(sql)
        assert "Nothing is handed over" in (await operator.get("/suppliers/nordsoft/pause")).text
        for act, state in (("pause", "paused"), ("resume", "open")):
            page = await operator.post(f"/suppliers/nordsoft/{act}", {"reason": "they asked"})
            assert (page.status, page.location) == (303, "/suppliers")
            assert await sql.fetchval("SELECT state FROM lanes") == state
        assert await logged(sql) == [
            ("bo", "lanes.pause", "they asked", "nordsoft"),
            ("bo", "lanes.resume", "they asked", "nordsoft"),
        ]

    @pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "he is 010136-4001"])
    async def test_without_a_valid_reason_nothing_happens(
        self, operator: Browser, sql: Sql, reason: str
    ) -> None:
        await dead_reports(sql)
        page = await operator.post("/suppliers/nordsoft/pause", {"reason": reason})
        assert (page.status, "reason" in page.text) == (409, True)
        assert (await sql.fetchval("SELECT state FROM lanes"), await logged(sql)) == ("open", [])

    async def test_a_test_report_is_due_and_its_trace_shown(
        self, browser_with_directory: Browser, sql: Sql
    ) -> None:
        operator = browser_with_directory.log_in("operator")
        assert "fictitious citizen" in (await operator.get("/suppliers/birkelund/test")).text
        page = await operator.post("/suppliers/birkelund/test", {"reason": "new certificate"})
        report_id = await sql.fetchval("SELECT report_id FROM reports WHERE type = 'report.test.v1'")
        assert page.location == f"/trace/{report_id}"
        assert (await operator.get(page.location)).status == 200
        assert await logged(sql) == [("bo", "lanes.test", "new certificate", str(report_id))]
        refused = await operator.post("/suppliers/nordlys/test", {"reason": "new certificate"})
        assert (refused.status, "no test citizen is agreed" in refused.text) == (409, True)

    async def test_an_unknown_lane_is_named_in_the_error(self, operator: Browser) -> None:
        assert "no lane" in (await operator.get("/suppliers/nobody/pause")).text


class TestLetters:
    async def test_letters_that_die_after_the_preview_are_not_discarded(
        self, operator: Browser, sql: Sql
    ) -> None:
        [first, second] = await dead_reports(sql, 2)
        page = await operator.get("/dead/discard?supplier=nordsoft")
        assert "2 letters" in page.text
        [late] = await dead_reports(sql)
        done = await operator.post("/dead/discard", fields_on(page) | {"reason": "a test"})
        assert done.location.startswith("/dead/restore?")
        states = [await state_of(sql, each) for each in (first, second, late)]
        assert states == ["discarded", "discarded", "dead"]
        [(actor, action, reason, subject)] = await logged(sql)
        assert (actor, action, reason) == ("bo", "dead.discard", "a test")
        assert subject.startswith("supplier nordsoft")

    async def test_a_discard_is_undone_on_the_page_that_follows(self, operator: Browser, sql: Sql) -> None:
        [report_id] = await dead_reports(sql)
        page = await operator.get(f"/dead/discard?ids={report_id}")
        done = await operator.post("/dead/discard", fields_on(page) | {"reason": "a test"})
        undo = await operator.get(done.location)
        assert ("Discarded: 1" in undo.text, "1 letter" in undo.text) == (True, True)
        back = await operator.post("/dead/restore", fields_on(undo) | {"reason": "a mistake"})
        assert (back.status, await state_of(sql, report_id)) == (303, "dead")

    async def test_many_letters_are_discarded_in_several_steps(
        self, operator: Browser, sql: Sql, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("broker.ledger.dead_letters.letters.MOST_AT_ONCE", 2)
        monkeypatch.setattr(ops, "MOST_AT_ONCE", 2)
        await dead_reports(sql, 3)
        path, counts = "/dead/discard?supplier=nordsoft", list[str]()
        while path.startswith("/dead/discard"):
            page = await operator.get(path)
            counts += re.findall(r"([0-9]+) letters?</p>", page.text)
            done = await operator.post("/dead/discard", fields_on(page) | {"reason": "a test"})
            path = done.location
        assert counts == ["3", "1"]
        assert await sql.fetchval("SELECT count(*) FROM reports WHERE state = 'discarded'") == 3

    async def test_a_discard_without_a_filter_is_refused(self, operator: Browser, sql: Sql) -> None:
        [report_id] = await dead_reports(sql)
        assert "Choose the letters first" in (await operator.get("/dead/discard")).text
        page = await operator.post("/dead/discard", {"reason": "all of it"})
        assert (page.status, await state_of(sql, report_id)) == (409, "dead")

    async def test_a_dead_booking_is_verified(self, operator: Browser, sql: Sql) -> None:
        request_id = await dead_booking(sql)
        assert "never carried out late" in (await operator.get(f"/dead/{request_id}/verify")).text
        page = await operator.post(f"/dead/{request_id}/verify", {"reason": "they are back"})
        assert page.location == f"/trace/{request_id}"
        assert await sql.fetchval("SELECT state FROM requests") == "uncertain"


class TestReplays:
    async def prepared(self, operator: Browser, **fields: str) -> str:
        page = await operator.get("/replays/new?supplier=nordsoft")
        sent = fields_on(page) | {"reason": "repaired", "rate": "1000", **fields}
        done = await operator.post("/replays/new", sent)
        assert done.status == 303, done.text
        return done.location

    async def test_a_set_is_frozen_previewed_started_and_replayed(
        self, operator: Browser, operations: Operations, sql: Sql
    ) -> None:
        [first, second] = await dead_reports(sql, 2)
        await dead_booking(sql)
        replay = await self.prepared(operator)
        [late] = await dead_reports(sql)
        preview = await operator.get(replay)
        assert ("exactly these 2" in preview.text, "Frozen: 2 letters" in preview.text) == (True, True)
        assert ("1 dead bookings are left out" in preview.text) is True
        assert all(str(each) in preview.text for each in (first, second))
        assert str(late) not in preview.text
        assert await state_of(sql, first) == "dead", "nothing moves before the start"

        assert (await operator.post(f"{replay}/start", {"reason": "repaired"})).status == 303
        assert await step(operations) == 1
        shown = await operator.get(replay)
        assert ("canary" in shown.text, 'data-refresh="2"' in shown.text) == (True, True)
        assert ("1 of 2 replayed" in shown.text, "Stop" in shown.text) == (True, True)
        assert "nordsoft" in (await operator.get("/replays")).text
        assert [entry[1] for entry in await logged(sql)] == ["dead.replay"]

    async def test_a_replay_is_stopped_and_resumed(
        self, operator: Browser, operations: Operations, sql: Sql
    ) -> None:
        await dead_reports(sql, 2)
        replay = await self.prepared(operator)
        for act, state in (("start", "canary"), ("stop", "stopped"), ("resume", "canary")):
            assert (await operator.post(f"{replay}/{act}", {"reason": f"to {act}"})).status == 303
            assert await sql.fetchval("SELECT state FROM replays") == state
            shown = await operator.get(replay)
            assert ("stopped by bo" in shown.text) == (state == "stopped")
        assert [entry[1] for entry in await logged(sql)] == [
            "dead.replay",
            "dead.replay.stop",
            "dead.replay.resume",
        ]

    @pytest.mark.parametrize("rate", ["0", "-1", "nan", "many", "1e9"])
    async def test_an_invalid_replay_rate_is_refused(self, operator: Browser, sql: Sql, rate: str) -> None:
        await dead_reports(sql)
        page = await operator.post("/replays/new", {"supplier": "nordsoft", "reason": "why", "rate": rate})
        assert (page.status, "a rate is" in page.text) == (409, True)
        assert await sql.fetchval("SELECT count(*) FROM replays") == 0

    async def test_a_viewer_sees_a_replay_without_forms(
        self, browser: Browser, operations: Operations, sql: Sql
    ) -> None:
        await dead_reports(sql)
        preview = await operations.replays.prepare(Filter(supplier="nordsoft"), ops.Actor("cy", "repaired"))
        browser.log_in("viewer")
        shown = await browser.get(f"/replays/{preview.replay_id}")
        assert (shown.status, 'class="act"' in shown.text) == (200, False)


async def test_a_page_says_that_the_ledger_is_unreachable(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise LedgerAway("no route to postgres.internal")

    monkeypatch.setattr(OperatorLog, "entries", away)
    browser.log_in("viewer")
    page = await browser.get("/log")
    assert (page.status, "cannot be reached" in page.text, "internal" in page.text) == (503, True, False)


async def test_lost_ledger_connections_are_replaced(browser: Browser, sql: Sql) -> None:
    browser.log_in("viewer")
    assert (await browser.get("/log")).status == 200
    await sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    async def back() -> bool:
        page = await browser.get("/log")
        assert page.status in (200, 503)
        return page.status == 200

    await poll(back, what="the operators' log")


async def test_an_unexpected_error_shows_no_details(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("0101364001")

    monkeypatch.setattr(OperatorLog, "entries", broken)
    browser.log_in("viewer")
    page = await browser.get("/log")
    assert (page.status, "0101364001" in page.text) == (500, False)


class TestTheLog:
    async def test_the_log_is_searched_in_pages(self, browser: Browser, operations: Operations) -> None:
        browser.log_in("viewer")
        for number in range(120):
            await operations.log.note(
                ops.Actor("cy" if number % 2 else "di", f"reason {number}"), "test", f"s{number}"
            )
        seen, path = [], "/log?actor=cy"
        while path:
            page = await browser.get(path)
            seen += [int(n) for n in re.findall(r"<td>reason (\d+)</td>", page.text)]
            older = re.search(r'<a href="([^"]+)" rel="next">', page.text)
            path = older[1].replace("&amp;", "&") if older else ""
        assert seen == list(range(119, 0, -2))
        assert "No entry matches" in (await browser.get("/log?subject=nothing&before=x")).text


class TestTrace:
    async def test_any_pasted_id_leads_to_its_trace(
        self, browser: Browser, operations: Operations, sql: Sql
    ) -> None:
        browser.log_in("viewer")
        [report_id] = await dead_reports(sql)
        await sql.execute(
            "INSERT INTO attempts VALUES ($1, 1, $2, now(), 'x-1', false)", report_id, UUID(int=3)
        )
        await operations.letters.discard(Filter(ids=(report_id,)), ops.Actor("di", "a test"))
        found = await browser.post("/trace", {"id": f"  {str(report_id).upper()} "})
        assert found.location == f"/trace/{report_id}"
        story = await browser.get(found.location)
        for words in ("automatic failure report", "attempt 1", "di: dead.discard", "a test"):
            assert words in story.text, words

    async def test_an_invalid_id_is_not_repeated(self, browser: Browser) -> None:
        browser.log_in("viewer")
        page = await browser.post("/trace", {"id": "0101364001"})
        assert (page.status, "0101364001" in page.text) == (422, False)

    async def test_the_id_of_a_replay_leads_to_its_page(
        self, browser: Browser, operations: Operations, sql: Sql
    ) -> None:
        browser.log_in("viewer")
        await dead_reports(sql)
        preview = await operations.replays.prepare(Filter(supplier="nordsoft"), ops.Actor("di", "repaired"))
        page = await browser.get(f"/trace/{preview.replay_id}")
        assert page.location == f"/replays/{preview.replay_id}"

    async def test_an_unknown_id_is_named_in_the_error(self, browser: Browser) -> None:
        browser.log_in("viewer")
        page = await browser.get(f"/trace/{UUID(int=9)}")
        assert (page.status, "the ledger knows no" in page.text) == (409, True)


def test_times_are_danish_and_exact() -> None:
    from broker.console.view import ago, when

    at = datetime(2026, 7, 1, 10, 0, 0, tzinfo=UTC)
    assert when(at) == '<time datetime="2026-07-01T10:00:00+00:00">2026-07-01 12:00:00</time>'
    assert ago(at - timedelta(hours=26, minutes=5), at) == "1 d 2 h"
