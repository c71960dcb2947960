"""Pages of dead letters: groups, search, paging, one letter. Acts on letters are in test_acts.py."""

from __future__ import annotations

import re
from html import unescape
from uuid import uuid4

import pytest

from broker.console.rights import ROLES, Right
from broker.ledger.operators.operations import Operations
from broker.ops import Filter
from tests.console.browser import Browser, Page
from tests.ledger.dead import BO, dead_booking, dead_reports, delivered, sealed_report
from tests.ledger.support import ANN, Sql

LINK = re.compile(r'<a href="/dead/([0-9a-f-]{36})">')
OLDER = re.compile(r'<a href="([^"]+)" rel="next">')


def listed(page: Page) -> list[str]:
    assert page.status == 200, page.text
    return LINK.findall(page.text)


async def search(browser: Browser, **fields: str) -> Page:
    found = await browser.post("/dead", fields)
    assert found.status == 303, found.text
    return await browser.get(found.location)


async def test_groups_and_letters_are_shown_together(browser: Browser, sql: Sql) -> None:
    browser.log_in("viewer")
    ids = {str(each) for each in await dead_reports(sql, 3, cause="rejected", fault="ukendt-booking")}
    booking = str(await dead_booking(sql))
    page = await browser.get("/dead")
    assert set(listed(page)) == ids | {booking}
    for words in ("rejected", "ukendt-booking", "unverified", "3 in the last 24 hours, at most 3 an hour"):
        assert words in page.text


async def test_pages_follow_each_other_to_the_end(browser: Browser, sql: Sql) -> None:
    browser.log_in("viewer")
    ids = {str(each) for each in await dead_reports(sql, 120)}
    listed_ids, path, pages = list[str](), "/dead?supplier=nordsoft", 0
    while path:
        page = await browser.get(path)
        listed_ids += listed(page)
        # Letters that die meanwhile do not shift the pages.
        await dead_reports(sql, 1)
        older = OLDER.search(page.text)
        path, pages = unescape(older[1]) if older else "", pages + 1
    assert (len(listed_ids), set(listed_ids), pages) == (120, ids, 3)


async def test_a_search_finds_by_every_field(browser: Browser, sql: Sql) -> None:
    browser.log_in("viewer")
    [letter_id] = await dead_reports(
        sql, supplier="sydsoft", cause="rejected", cause_class="message", jobcenter="20200"
    )
    await dead_reports(sql, 2)
    request_id = uuid4()
    await sql.execute(
        "UPDATE reports SET request_id = $2, error_code = 3, last_failed_at = '2031-05-01' WHERE report_id = $1",
        letter_id,
        request_id,
    )
    for fields in (
        {"supplier": "sydsoft"},
        {"cause": " rejected "},
        {"cause_class": "message"},
        {"jobcenter_code": "20200"},
        {"error_code": "3"},
        {"after": "2031-04-30T12:00"},
        {"about": str(request_id)},
        {"about": str(letter_id)},
        {"supplier": "sydsoft", "kind": "report", "error_code": "3", "before": "2031-05-02T00:00"},
    ):
        assert listed(await search(browser, **fields)) == [str(letter_id)], fields
    assert len(listed(await search(browser))) == 3
    assert "No letter matches" in (await search(browser, supplier="nowhere")).text


@pytest.mark.parametrize("field", ["cause", "supplier", "jobcenter_code", "about"])
@pytest.mark.parametrize("number", [ANN, f"{ANN[:6]}-{ANN[6:]}"])
async def test_a_cpr_number_that_is_pasted_by_mistake_is_in_no_address(
    browser: Browser, field: str, number: str
) -> None:
    browser.log_in("viewer")
    page = await browser.post("/dead", {field: number})
    assert (page.status, page.location) == (409, "")
    assert ANN not in "".join(browser.seen)
    assert number not in "".join(browser.seen)


async def test_an_invalid_cursor_is_refused(browser: Browser) -> None:
    browser.log_in("viewer")
    assert (await browser.get("/dead?behind=nonsense")).status == 409


async def test_discarded_letters_are_listed_separately(
    browser: Browser, operations: Operations, sql: Sql
) -> None:
    browser.log_in("operator")
    [discarded, other] = await dead_reports(sql, 2)
    await operations.letters.discard(Filter(ids=(discarded,)), BO)
    assert listed(await browser.get("/dead")) == [str(other)]
    page = await search(browser, discarded="1", supplier="nordsoft")
    assert (listed(page), "Restore all of these" in page.text) == ([str(discarded)], True)
    letter = await browser.get(f"/dead/{discarded}")
    assert (">discarded<" in letter.text, f"/dead/restore?ids={discarded}" in letter.text) == (True, True)


async def test_a_letter_shows_its_timeline(browser: Browser, operations: Operations, sql: Sql) -> None:
    browser.log_in("privacy", "operator")
    report_id = await sealed_report(sql, operations.sealer)
    await sql.execute("INSERT INTO attempts VALUES ($1, 1, $2, now(), 'x-1', false)", report_id, uuid4())
    page = await browser.get(f"/dead/{report_id}")
    assert page.status == 200
    for words in (
        "exhausted",
        "attempt 1",
        "nordsoft",
        f"/reveal/{report_id}",
        f"/replays/new?ids={report_id}",
    ):
        assert words in page.text
    assert ANN not in page.text


async def test_a_dead_booking_can_be_verified_and_not_replayed(browser: Browser, sql: Sql) -> None:
    browser.log_in("operator")
    booking = await dead_booking(sql)
    page = await browser.get(f"/dead/{booking}")
    assert f"/dead/{booking}/verify" in page.text
    assert "/replays/new" not in page.text


async def test_a_letter_no_longer_dead_redirects_to_its_trace(browser: Browser, sql: Sql) -> None:
    browser.log_in("viewer")
    [report_id] = await dead_reports(sql)
    await delivered(sql, report_id)
    page = await browser.get(f"/dead/{report_id}")
    assert (page.status, page.location) == (303, f"/trace/{report_id}")
    assert "This letter is no longer dead" in (await browser.get(page.location)).text
    assert (await browser.get(f"/dead/{uuid4()}")).status == 409


@pytest.mark.parametrize("role", ROLES)
async def test_only_permitted_acts_are_offered(browser: Browser, sql: Sql, role: str) -> None:
    browser.log_in(role)
    [report_id] = await dead_reports(sql)
    rights = ROLES[role]
    for page in (await browser.get("/dead?supplier=nordsoft"), await browser.get(f"/dead/{report_id}")):
        assert ("/replays/new" in page.text) == (Right.REPLAY in rights)
        assert ("/dead/discard" in page.text) == (Right.DISCARD in rights)
    assert ("/reveal/" in page.text) == (Right.REVEAL in rights)
