"""Users named by a reverse proxy: accepted only from trusted addresses, and only users in the settings."""

from __future__ import annotations

from broker.console.access import is_trusted_proxy
from config.console_section import ConsoleSettings
from tests.console.browser import Browser
from tests.console.conftest import Serve
from tests.ledger.support import Sql

USERS = {"cy": {"roles": ["operator"]}, "di": {"roles": ["viewer"]}}
PROXY = {"users": USERS, "trusted_header": "X-Forwarded-User", "trusted_proxies": ["127.0.0.0/8"]}


async def test_the_user_that_the_proxy_names_is_logged_in_with_the_roles_of_the_configuration(
    served: Serve, sql: Sql
) -> None:
    browser: Browser = await served(**PROXY)
    await sql.execute("INSERT INTO lanes (supplier) VALUES ('nordsoft')")
    form = await browser.get("/suppliers/nordsoft/pause", X_Forwarded_User="cy")
    assert form.status == 200
    for user, status in (("di", 403), ("cy", 303)):
        page = await browser.post(
            "/suppliers/nordsoft/pause", {"reason": "why"}, token=form.token, X_Forwarded_User=user
        )
        assert page.status == status
    assert await sql.fetchval("SELECT actor FROM operator_log WHERE action = 'lanes.pause'") == "cy"


async def test_missing_and_unknown_users_are_refused(served: Serve) -> None:
    browser: Browser = await served(**PROXY)
    for headers in ({}, {"X_Forwarded_User": "emperor"}, {"X_Forwarded_User": ""}):
        for path in ("/", "/login", "/static/console.css"):
            assert (await browser.get(path, **headers)).status == 403


async def test_the_header_from_another_address_is_refused(served: Serve) -> None:
    browser: Browser = await served(**PROXY | {"trusted_proxies": ["192.0.2.7"]})
    page = await browser.get("/", X_Forwarded_User="cy")
    assert (page.status, "through its proxy only" in page.text) == (403, True)


async def test_without_trusted_header_the_header_is_ignored(served: Serve) -> None:
    browser: Browser = await served(users=USERS)
    assert (await browser.get("/", X_Forwarded_User="cy")).status == 303


async def test_there_is_no_login_behind_a_proxy(served: Serve) -> None:
    browser: Browser = await served(**PROXY)
    page = await browser.get("/find", X_Forwarded_User="cy")
    for path in ("/login", "/login/link"):
        token = page.token
        assert (await browser.post(path, {"name": "cy"}, token=token, X_Forwarded_User="cy")).status == 404


def test_addresses_are_compared_as_addresses() -> None:
    settings = ConsoleSettings(trusted_header="X-User", trusted_proxies=("10.1.0.0/16", "2001:db8::1"))
    trusted = ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"]
    refused = ["10.2.0.1", "2001:db8::2", "127.0.0.1", "", "10.1.2.3.evil.example", None]
    assert [address for address in [*trusted, *refused] if is_trusted_proxy(address, settings)] == trusted
