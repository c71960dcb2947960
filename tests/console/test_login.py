"""Login by password and by one-time link."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import pytest
from argon2 import PasswordHasher

from broker.console.context import SESSIONS
from broker.console.links import LinkRefused, Links, issue
from broker.console.passwords import COUNTERS, LoginTries, TooMany, _matches
from broker.ledger.operators.operations import Operations
from tests.console.browser import Browser, Page
from tests.console.conftest import Serve
from tests.ledger.support import Sql, sealer_for, settings_for

PASSWORD = "correct horse battery"
# The lowest cost that the settings accept.
HASH = PasswordHasher(time_cost=1, memory_cost=19_456, parallelism=1).hash(PASSWORD)
USERS = {"bo": {"roles": ["operator"], "password_hash": HASH}, "proxied": {"roles": ["viewer"]}}


async def log_in(browser: Browser, name: str, password: str, onward: str = "/log") -> Page:
    form = await browser.get("/login")
    return await browser.post(
        "/login", {"name": name, "password": password, "next": onward}, token=form.token
    )


def bare(page: Page) -> str:
    """The page without its token, which differs each time."""
    return re.sub(r'name="token" value="[^"]+"', "", page.text)


@pytest.fixture
async def browser(served: Serve) -> Browser:
    browser: Browser = await served(users=USERS, login_attempts=3)
    return browser


class TestPasswords:
    async def test_a_name_and_its_password_open_a_session_that_is_in_the_operators_log(
        self, browser: Browser, sql: Sql
    ) -> None:
        page = await log_in(browser, "bo", PASSWORD)
        assert (page.status, page.location) == (303, "/log")
        shown = await browser.get("/log")
        assert (shown.status, "console.login" in shown.text) == (200, True)
        assert await sql.fetchval("SELECT actor FROM operator_log WHERE action = 'console.login'") == "bo"

    async def test_wrong_names_and_wrong_passwords_get_the_same_answer(self, browser: Browser) -> None:
        wrong = await log_in(browser, "bo", "not it at all")
        nobody = await log_in(browser, "nobody", "not it at all")
        no_password = await log_in(browser, "proxied", "")
        assert wrong.status == nobody.status == no_password.status == 401
        assert bare(wrong) == bare(nobody) == bare(no_password)
        assert (await browser.get("/")).location.startswith("/login")

    @pytest.mark.parametrize("name", ["bo", "nobody"])
    async def test_a_name_that_was_tried_too_often_waits_even_with_the_right_password(
        self, browser: Browser, name: str
    ) -> None:
        for _ in range(3):
            assert (await log_in(browser, name, "wrong again")).status == 401
        page = await log_in(browser, name, PASSWORD)
        assert (page.status, int(page.headers["Retry-After"]) > 0) == (429, True)
        assert (await log_in(browser, "other", "wrong")).status == 401

    async def test_a_login_resets_the_count_of_tries(self, browser: Browser) -> None:
        for _ in range(2):
            assert (await log_in(browser, "bo", "wrong again")).status == 401
            assert (await log_in(browser, "bo", "wrong again")).status == 401
            assert (await log_in(browser, "bo", PASSWORD)).status == 303
            await browser.clear_cookies()

    async def test_many_tries_at_once_are_counted_one_by_one(self, browser: Browser) -> None:
        form = await browser.get("/login")
        fields = {"name": "bo", "password": "wrong again"}
        tries = [browser.post("/login", fields, token=form.token) for _ in range(10)]
        statuses = sorted(page.status for page in await asyncio.gather(*tries))
        assert statuses == [401] * 3 + [429] * 7

    async def test_a_name_that_does_not_exist_costs_the_same_work(
        self, browser: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checked: list[str] = []

        def watched(hash_: str, password: str) -> bool:
            checked.append(hash_.rsplit("$", 2)[0])
            return _matches(hash_, password)

        monkeypatch.setattr("broker.console.passwords._matches", watched)
        for name in ("bo", "nobody", "proxied", ""):
            await log_in(browser, name, "not it at all")
        assert checked == [HASH.rsplit("$", 2)[0]] * 4

    async def test_logging_in_again_ends_the_session_before(self, browser: Browser) -> None:
        await log_in(browser, "bo", PASSWORD)
        [before] = browser.app[SESSIONS].live()
        page = await browser.get("/log")
        again = {"name": "bo", "password": PASSWORD}
        assert (await browser.post("/login", again, token=page.token)).status == 303
        [after] = browser.app[SESSIONS].live()
        assert (after.key != before.key, before.ended) == (True, True)

    @pytest.mark.parametrize(
        "onward",
        ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "\x00", "log"],
    )
    async def test_the_login_never_redirects_to_another_site(self, browser: Browser, onward: str) -> None:
        assert (await log_in(browser, "bo", PASSWORD, onward)).location == "/"

    async def test_the_session_cookie_is_for_this_site_only_and_hidden_from_scripts(
        self, browser: Browser
    ) -> None:
        page = await log_in(browser, "bo", PASSWORD)
        given = page.headers["Set-Cookie"]
        assert "HttpOnly" in given
        assert "SameSite=Strict" in given

    async def test_the_requested_page_is_shown_after_the_login(self, browser: Browser) -> None:
        form = await browser.get("/log?actor=bo")
        assert form.location == "/login?next=/log%3Factor%3Dbo"
        assert 'value="/log?actor=bo"' in (await browser.get(form.location)).text

    async def test_a_link_from_another_site_finds_the_session(self, browser: Browser) -> None:
        """The browser sends the SameSite=Strict cookie only with the second request, which the console's page makes."""
        first = await browser.get("/log?actor=bo", Sec_Fetch_Site="cross-site")
        again = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', first.text)
        assert again
        browser.log_in("viewer")
        onward = await browser.get(again[1], Sec_Fetch_Site="same-origin")
        assert (onward.status, onward.location) == (303, "/log?actor=bo")


class TestTries:
    def test_a_window_ends(self) -> None:
        now = [0.0]
        tries = LoginTries(2, 60, lambda: now[0])
        tries.count("bo")
        tries.count("bo")
        with pytest.raises(TooMany) as refused:
            tries.count("bo")
        assert refused.value.seconds == 60
        now[0] = 60
        tries.count("bo")

    def test_a_flood_of_names_takes_no_memory_and_resets_no_count(self) -> None:
        tries = LoginTries(1, 60, lambda: 0.0)
        tries.count("bo")
        for number in range(3 * COUNTERS):
            with contextlib.suppress(TooMany):
                tries.count(f"name {number}")
        assert len(tries._counts) == len(tries._since) == COUNTERS
        with pytest.raises(TooMany):
            tries.count("bo")


def link_of(operations: Operations, *roles: str, name: str = "ann", **more: Any) -> str:
    return issue(operations.sealer, name, roles, **more)


class TestLinks:
    async def test_a_link_logs_in_once(self, browser: Browser, operations: Operations, sql: Sql) -> None:
        link = link_of(operations, "viewer", "privacy")
        offer = await browser.get(f"/login/link/{link}")
        assert ("ann" in offer.text, "viewer, privacy" in offer.text) == (True, True)
        assert (await browser.get(f"/login/link/{link}")).status == 200, "a GET does not use it up"
        page = await browser.post("/login/link", {"link": link}, token=offer.token)
        assert (page.status, page.location) == (303, "/")
        assert (await browser.get("/find")).status == 200
        again = await browser.get(f"/login/link/{link}")
        assert (again.status, "cannot be used" in again.text) == (403, True)
        reason = await sql.fetchval("SELECT reason FROM operator_log WHERE action = 'console.login'")
        assert reason == "one-time link: viewer, privacy"

    async def test_a_second_browser_cannot_use_it(self, browser: Browser, operations: Operations) -> None:
        link = link_of(operations, "viewer")
        offer = await browser.get(f"/login/link/{link}")
        assert (await browser.post("/login/link", {"link": link}, token=offer.token)).status == 303
        async with Browser(browser.app) as other:
            form = await other.get("/login")
            assert (await other.post("/login/link", {"link": link}, token=form.token)).status == 403

    def test_a_link_expires(self, operations: Operations) -> None:
        now = [1000.0]
        links = Links(operations.sealer, 300, lambda: now[0])
        link = link_of(operations, "viewer", clock=lambda: now[0])
        now[0] = 1299
        assert links.verify(link).name == "ann"
        now[0] = 1300
        with pytest.raises(LinkRefused):
            links.redeem(link)

    def test_a_link_issued_before_the_start_is_refused(self, operations: Operations) -> None:
        link = link_of(operations, "viewer", clock=lambda: 999.0)
        with pytest.raises(LinkRefused):
            Links(operations.sealer, 300, lambda: 1000.0).redeem(link)

    def test_forged_and_malformed_links_are_refused(self, operations: Operations) -> None:
        links = Links(operations.sealer, 300, lambda: 1000.0)
        good = link_of(operations, "viewer", clock=lambda: 1000.0)
        payload, key_id, digest = good.split(".")
        stranger = sealer_for(settings_for("postgresql://x/y", tokens=("t2",)))
        wrong = [
            "",
            "x",
            "..",
            f"{payload}.{key_id}.{digest[:-2]}AA",
            f"{payload}.none.{digest}",
            f"{payload[:-4]}AAAA.{key_id}.{digest}",
            issue(stranger, "ann", ("admin",), lambda: 1000.0),
            link_of(operations, "emperor", clock=lambda: 1000.0),
            good + "é",
        ]
        for text in wrong:
            with pytest.raises(LinkRefused):
                links.redeem(text)
        assert links.redeem(good).roles == ("viewer",)
