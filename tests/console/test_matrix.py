"""Every address with every role and without a login: access is as the table says."""

from __future__ import annotations

import pytest

from broker.console.page_routes import TABLE
from broker.console.rights import ROLES, Right
from broker.console.table import Open
from tests.console.browser import Browser, address

REFUSED = "none of your roles gives the right"


async def test_without_a_login_no_page_is_shown_and_no_form_accepted(browser: Browser) -> None:
    for row in TABLE:
        if row.needs is Open.ANYONE:
            continue
        if row.method == "GET":
            page = await browser.get(address(row))
            assert (page.status, page.location.partition("?")[0]) == (303, "/login"), row
        else:
            page = await browser.post(address(row), {"reason": "because"})
            assert (page.status, "nothing was done" in page.text) == (403, True), row


@pytest.mark.parametrize("role", [*ROLES, "unknown"])
async def test_a_role_does_what_its_rights_say_and_nothing_else(browser: Browser, role: str) -> None:
    browser.log_in(role)
    for row in TABLE:
        if row.path in ("/logout", "/login", "/login/link"):
            continue
        page = await (browser.get if row.method == "GET" else browser.post)(address(row))
        allowed = row.needs is Open.ANYONE or row.needs in ROLES.get(role, ())
        assert (REFUSED in page.text) != allowed, (role, row, page.status)
        assert page.status != 500, (row, page.text)
        if not allowed:
            assert page.status == 403, row


def test_no_role_has_every_right() -> None:
    assert all(rights < set(Right) for rights in ROLES.values())
    assert [role for role, rights in ROLES.items() if Right.REVEAL in rights] == ["privacy"]
    assert set().union(*ROLES.values()) == set(Right)
