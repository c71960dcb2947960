"""No answer except a reveal contains personal data, and stored or sent text never becomes markup."""

from __future__ import annotations

from uuid import UUID

import pytest

from broker import ops
from broker.console.page_routes import TABLE
from broker.ledger.operators.operations import Operations
from tests.console.browser import Browser, address
from tests.ledger.dead import dead_booking, sealed_report
from tests.ledger.support import ANN, Sql

MARKUP = '<script>alert("x")</script>'
EVERYBODY = ("viewer", "operator", "privacy", "admin")


async def every_page(browser: Browser, report_id: UUID) -> None:
    for row in TABLE:
        if row.method == "GET":
            await browser.get(address(row))
    for path in (
        f"/trace/{report_id}",
        f"/dead/{report_id}",
        f"/dead/discard?ids={report_id}",
        f"/replays/new?ids={report_id}",
    ):
        assert (await browser.get(path)).status == 200, path


class TestReveal:
    async def test_one_field_is_shown_once_for_a_reason_that_is_logged(
        self, browser: Browser, operations: Operations, sql: Sql
    ) -> None:
        browser.log_in("privacy")
        report_id = await sealed_report(sql, operations.sealer)
        assert ANN not in (await browser.get(f"/reveal/{report_id}")).text
        page = await browser.post(f"/reveal/{report_id}", {"field": "cpr", "reason": "the citizen called"})
        assert (page.status, ANN in page.text) == (200, True)
        assert page.headers["Cache-Control"] == "no-store"
        [entry] = await operations.log.entries(action="reveal")
        assert (entry.actor, entry.reason, entry.subject) == ("bo", "the citizen called", str(report_id))
        browser.seen.clear()
        for path in (f"/trace/{report_id}", "/log", f"/reveal/{report_id}", "/"):
            await browser.get(path)
        assert ANN not in "".join(browser.seen)

    async def test_without_a_reason_nothing_is_shown(
        self, browser: Browser, operations: Operations, sql: Sql
    ) -> None:
        browser.log_in("privacy")
        report_id = await sealed_report(sql, operations.sealer)
        page = await browser.post(f"/reveal/{report_id}", {"field": "cpr", "reason": " "})
        assert (page.status, ANN in page.text) == (409, False)
        assert await operations.log.entries() == []

    @pytest.mark.parametrize(
        "roles", [("viewer",), ("operator",), ("admin",), ("viewer", "operator", "admin")]
    )
    async def test_roles_without_the_right_are_neither_shown_nor_offered_a_reveal(
        self, browser: Browser, operations: Operations, sql: Sql, roles: tuple[str, ...]
    ) -> None:
        browser.log_in(*roles)
        report_id = await sealed_report(sql, operations.sealer)
        page = await browser.post(f"/reveal/{report_id}", {"field": "cpr", "reason": "curious"})
        assert (page.status, ANN in page.text) == (403, False)
        assert "/reveal/" not in (await browser.get(f"/trace/{report_id}")).text
        assert await operations.log.entries() == []

    async def test_a_citizen_is_found_without_the_number_in_any_answer(
        self, browser: Browser, operations: Operations, sql: Sql
    ) -> None:
        browser.log_in("privacy")
        report_id = await sealed_report(sql, operations.sealer)
        found = await browser.post("/find", {"cpr": f"{ANN[:6]}-{ANN[6:]}", "reason": "he asked"})
        assert (found.status, str(report_id) in found.text) == (200, True)
        assert "is no CPR number" in (await browser.post("/find", {"cpr": "1", "reason": "he asked"})).text
        assert ANN not in "".join(browser.seen)


async def test_no_page_holds_a_cpr_number(browser: Browser, operations: Operations, sql: Sql) -> None:
    browser.log_in(*EVERYBODY)
    report_id = await sealed_report(sql, operations.sealer)
    await dead_booking(sql)
    await operations.people.reveal(report_id, "cpr", ops.Actor("bo", "the citizen called"))
    await every_page(browser, report_id)
    assert ANN not in "".join(browser.seen)
    assert not any("Traceback" in text for text in browser.seen)


@pytest.mark.parametrize(
    "written", [ANN, f"{ANN[:6]}-{ANN[6:]}", f"{ANN[:6]}%2D{ANN[6:]}", f"{ANN[:6]}%20{ANN[6:]}"]
)
async def test_an_address_with_a_cpr_number_is_refused_and_not_repeated(
    browser: Browser, written: str
) -> None:
    browser.log_in("viewer")
    for path in (
        f"/log?subject={written}",
        f"/trace/{written}",
        f"/static/{written}",
        f"/login?next={written}",
    ):
        page = await browser.get(path)
        assert page.status in (400, 404), path
        assert ANN not in page.text.replace("-", "")


async def test_ids_of_digits_only_are_not_taken_for_cpr_numbers(browser: Browser) -> None:
    browser.log_in("operator")
    ids = [UUID("12345678-1234-5678-8123-456789012345"), UUID("01013640-0101-4136-8400-101364001013")]
    for between in ("+", "%20"):
        page = await browser.get("/dead/discard?ids=" + between.join(map(str, ids)))
        assert (page.status, "0 letters" in page.text) == (200, True)


class TestMarkup:
    async def test_stored_text_is_escaped(self, browser: Browser, operations: Operations, sql: Sql) -> None:
        browser.log_in(*EVERYBODY, name="bo")
        report_id = await sealed_report(sql, operations.sealer, fejltekst=MARKUP)
        await sql.execute("UPDATE reports SET cause = $1, fault = $1, jobcenter_code = '10100'", MARKUP)
        await sql.execute("INSERT INTO lanes (supplier) VALUES ($1)", MARKUP)
        await operations.log.note(ops.Actor(MARKUP, MARKUP), MARKUP, str(report_id))
        preview = await operations.replays.prepare(ops.Filter(cause=MARKUP), ops.Actor("bo", MARKUP))
        await every_page(browser, report_id)
        for path in ("/", "/log", "/replays", f"/replays/{preview.replay_id}", f"/reveal/{report_id}"):
            await browser.get(path)
        revealed = await browser.post(f"/reveal/{report_id}", {"field": "fejltekst", "reason": MARKUP})
        assert "&lt;script&gt;" in revealed.text
        assert not any(MARKUP in text or "<script>" in text for text in browser.seen)

    async def test_sent_text_is_escaped(self, browser: Browser) -> None:
        browser.log_in(*EVERYBODY)
        quoted = "%3Cscript%3Ealert(%22x%22)%3C/script%3E"
        for row in TABLE:
            if row.method == "GET":
                await browser.get(
                    f"{address(row)}?actor={quoted}&supplier={quoted}&next={quoted}&cause={quoted}"
                )
            else:
                await browser.post(
                    address(row), {"reason": MARKUP, "field": MARKUP, "name": MARKUP, "id": MARKUP}
                )
        await browser.get(f"/{quoted}")
        assert not any("<script>" in text for text in browser.seen)
