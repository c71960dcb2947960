"""The security headers of every answer, and that no template needs what the policy forbids."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiohttp import web

from broker.console import web_app as console
from broker.console.page_routes import TABLE
from broker.console.rights import Right
from broker.console.security_headers import HEADERS
from broker.console.table import Open, PageRoute, TableBroken, add_rows, check_rows
from broker.console.web_app import build
from broker.ledger.operators.operations import Operations
from config.settings import Settings
from tests.console.browser import Browser, address
from tests.console.conftest import Serve

HERE = Path(console.__file__).parent
ALL_ROLES = ("viewer", "operator", "privacy", "admin")


async def test_every_answer_has_the_security_headers(browser: Browser) -> None:
    browser.log_in(*ALL_ROLES)
    paths = [address(row) for row in TABLE if row.method == "GET"]
    for path in [*paths, "/nowhere", "/static/nothing", "/trace/none"]:
        page = await browser.get(path)
        assert {name: page.headers.get(name) for name in HEADERS} == HEADERS, path
        kept = "no-cache" if path == "/static/console.css" else "no-store"
        assert page.headers["Cache-Control"] == kept, path
    for path in (address(row) for row in TABLE if row.method == "POST"):
        assert (await browser.post(path, token="")).headers["Cache-Control"] == "no-store"


def test_templates_have_no_inline_code_and_no_foreign_links() -> None:
    templates, static = list((HERE / "templates").glob("*.html")), list((HERE / "static").iterdir())
    assert len(templates) > 20
    assert static
    for file in templates:
        text = file.read_text()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?! src=)", text, re.I), (
            file.name
        )
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text, re.I), file.name
        assert "| safe" not in text, file.name
        assert "autoescape" not in text, file.name
    for file in static:
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\(", text), file.name


async def test_over_https_cookies_are_bound_to_https_and_this_host(served: Serve) -> None:
    browser: Browser = await served(url="https://console.example")
    page = await browser.get("/login", Host="console.example")
    assert page.headers["Set-Cookie"].startswith("__Host-jobnet-login=")
    assert "Secure" in page.headers["Set-Cookie"]
    assert "max-age" in page.headers["Strict-Transport-Security"]
    assert (await browser.get("/login")).status == 421


class TestTheTable:
    def broken(self, settings: Settings, operations: Operations, *rows: PageRoute) -> str:
        with pytest.raises(TableBroken) as refused:
            build(settings, operations, rows)
        return str(refused.value)

    async def test_the_console_does_not_start_with_an_address_that_names_no_right(
        self, settings: Settings, operations: Operations
    ) -> None:
        async def handler(request: web.Request) -> web.StreamResponse:
            raise AssertionError

        assert "must name a right" in self.broken(settings, operations, PageRoute("GET", "/x", None, handler))  # type: ignore[arg-type]
        assert "open to anyone" in self.broken(
            settings, operations, PageRoute("GET", "/x", Open.ANYONE, handler)
        )

        app = web.Application()
        add_rows(app, [PageRoute("GET", "/x", Right.SEE, handler)])
        app.router.add_get("/beside-the-table", handler)
        with pytest.raises(TableBroken, match="beside-the-table"):
            check_rows(app)

    def test_every_act_needs_a_right_beyond_see(self) -> None:
        harmless = {"/login", "/login/link", "/logout", "/trace", "/dead"}
        for row in TABLE:
            if row.method == "POST" and row.path not in harmless:
                assert row.needs not in (Open.ANYONE, Right.SEE), row.path
