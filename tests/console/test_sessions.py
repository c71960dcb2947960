"""Sessions end: by idleness, by age, by number, by a person."""

from __future__ import annotations

import pytest

from broker.console.session_store import Session, Sessions
from config.console_section import ConsoleSettings
from tests.console.browser import Browser
from tests.console.conftest import Serve
from tests.ledger.support import Sql


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def sessions(clock: Clock, **changes: float) -> Sessions:
    return Sessions(
        ConsoleSettings(**{"session_idle_seconds": 60, "session_most_seconds": 600, **changes}), clock
    )


def begun(all_: Sessions, name: str = "bo") -> tuple[str, Session]:
    return all_.begin(name, ("viewer",), "test")


def test_who_does_nothing_is_logged_out(clock: Clock) -> None:
    all_ = sessions(clock)
    secret, session = begun(all_)
    for clock.now in (59, 118):
        assert all_.find(secret) is session
    clock.now = 178
    assert not all_.alive(session)
    assert all_.find(secret) is None


def test_a_page_that_renews_itself_keeps_nobody_logged_in(clock: Clock) -> None:
    all_ = sessions(clock)
    secret, session = begun(all_)
    clock.now = 59
    assert all_.find(secret, background=True) is session
    clock.now = 60
    assert all_.find(secret) is None


def test_nobody_stays_for_ever(clock: Clock) -> None:
    all_ = sessions(clock)
    secret, _ = begun(all_)
    for second in range(0, 600, 30):
        clock.now = second
        assert all_.find(secret)
    clock.now = 600
    assert all_.find(secret) is None


def test_one_too_many_ends_the_one_that_was_idle_the_longest(clock: Clock) -> None:
    all_ = sessions(clock, sessions_most=2)
    (first, _), (second, ended) = begun(all_), begun(all_)
    clock.now = 1
    assert all_.find(first)
    third, _ = begun(all_)
    assert (bool(all_.find(first)), bool(all_.find(second)), bool(all_.find(third))) == (True, False, True)
    assert not all_.alive(ended)
    assert len(all_.live()) == 2


def test_what_is_kept_does_not_log_in(clock: Clock) -> None:
    all_ = sessions(clock)
    secret, session = begun(all_)
    assert secret not in repr(vars(session))
    assert all_.find(session.key) is None


async def test_logging_out_ends_it_here_not_only_in_the_browser(browser: Browser) -> None:
    browser.come_in("viewer")
    assert (await browser.get("/")).status == 200
    assert (await browser.post("/logout")).location == "/login"
    browser.put_back()
    assert (await browser.get("/")).status == 303


async def test_an_admin_sees_sessions_and_ends_one(browser: Browser, sql: Sql) -> None:
    browser.come_in("admin")
    async with Browser(browser.app) as other:
        other.come_in("viewer", name="cy")
        assert "cy" in (await browser.get("/sessions")).text
        assert other.session
        fields = {"key": other.session.key, "reason": "left the house"}
        assert (await browser.post("/sessions/end", fields)).status == 303
        assert (await other.get("/")).status == 303
    row = await sql.fetchrow("SELECT actor, subject FROM operator_log WHERE action = 'console.end-session'")
    assert (row["actor"], row["subject"]) == ("bo", "cy")


async def test_an_act_after_the_session_has_ended_does_nothing_and_says_so(served: Serve, sql: Sql) -> None:
    browser: Browser = await served(session_idle_seconds=0.001)
    browser.come_in("operator")
    page = await browser.post("/suppliers/nordsoft/pause", {"reason": "because"})
    assert (page.status, "nothing was done" in page.text) == (403, True)
    assert await sql.fetchval("SELECT count(*) FROM operator_log") == 0
