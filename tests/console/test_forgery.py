"""Forged requests: forms of other sites, foreign host names and wrong content types change nothing."""

from __future__ import annotations

import pytest

from broker.console.page_routes import TABLE
from tests.console.browser import Browser, address
from tests.ledger.support import Sql

POSTS = [row for row in TABLE if row.method == "POST"]
LANE = "/suppliers/nordsoft/pause"
BECAUSE = {"reason": "because"}


@pytest.fixture
async def browser(browser: Browser, sql: Sql) -> Browser:
    await sql.execute("INSERT INTO lanes (supplier) VALUES ('nordsoft')")
    return browser.log_in("admin", "privacy")


@pytest.mark.parametrize("token", ["", "x", "a" * 43])
async def test_every_form_needs_its_token(browser: Browser, token: str) -> None:
    for row in POSTS:
        page = await browser.post(address(row), BECAUSE, token=token)
        assert (page.status, "its token" in page.text) == (403, True), row


async def test_a_token_is_good_for_its_own_session_only(browser: Browser) -> None:
    async with Browser(browser.app) as other:
        other.log_in("admin")
        assert other.session
        assert (await browser.post(LANE, BECAUSE, token=other.session.token)).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "", "Origin": "https://evil.example"},
        {"Sec_Fetch_Site": ""},
    ],
)
async def test_a_form_of_another_site_does_nothing(
    browser: Browser, sql: Sql, headers: dict[str, str]
) -> None:
    for row in POSTS:
        page = await browser.post(address(row), BECAUSE, **headers)
        assert (page.status, "not sent by a page of this console" in page.text) == (403, True), row
    assert await sql.fetchval("SELECT count(*) FROM operator_log") == 0


async def test_a_matching_origin_without_fetch_metadata_is_accepted(browser: Browser) -> None:
    page = await browser.post(LANE, BECAUSE, Sec_Fetch_Site="", Origin=browser.origin)
    assert page.status == 303


async def test_only_forms_are_accepted(browser: Browser) -> None:
    for kind in ("text/plain", "application/json", "multipart/form-data; boundary=x"):
        assert (await browser.post(LANE, BECAUSE, Content_Type=kind)).status == 415


async def test_get_requests_change_nothing(browser: Browser, sql: Sql) -> None:
    for row in POSTS:
        await browser.get(f"{address(row)}?reason=because")
    assert await sql.fetchval("SELECT count(*) FROM operator_log") == 0


async def test_a_foreign_host_name_is_refused(browser: Browser) -> None:
    page = await browser.get("/login", Host="evil.example")
    assert page.status == 421
    port = browser.origin.rsplit(":", 1)[1]
    assert (await browser.get("/login", Host=f"localhost:{port}")).status == 303
    assert (await browser.get("/login", Host="localhost:1")).status == 421


async def test_a_form_that_is_too_large_is_not_read(browser: Browser) -> None:
    page = await browser.post(LANE, {"reason": "x" * 100_000})
    assert page.status == 413
