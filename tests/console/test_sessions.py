"""Sessions end by idleness, age, number, logout and an admin."""

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


def begun(store: Sessions, name: str = "bo") -> tuple[str, Session]:
    return store.begin(name, ("viewer",), "test")


def test_an_idle_session_ends(clock: Clock) -> None:
    store = sessions(clock)
    secret, session = begun(store)
    for clock.now in (59, 118):
        assert store.find(secret) is session
    clock.now = 178
    assert not store.alive(session)
    assert store.find(secret) is None


def test_background_requests_do_not_keep_a_session_alive(clock: Clock) -> None:
    store = sessions(clock)
    secret, session = begun(store)
    clock.now = 59
    assert store.find(secret, background=True) is session
    clock.now = 60
    assert store.find(secret) is None


def test_a_session_ends_at_its_maximum_age(clock: Clock) -> None:
    store = sessions(clock)
    secret, _ = begun(store)
    for second in range(0, 600, 30):
        clock.now = second
        assert store.find(secret)
    clock.now = 600
    assert store.find(secret) is None


def test_above_the_limit_the_session_idle_longest_ends(clock: Clock) -> None:
    store = sessions(clock, sessions_most=2)
    (first, _), (second, ended) = begun(store), begun(store)
    clock.now = 1
    assert store.find(first)
    third, _ = begun(store)
    assert (bool(store.find(first)), bool(store.find(second)), bool(store.find(third))) == (True, False, True)
    assert not store.alive(ended)
    assert len(store.live()) == 2


def test_stored_session_data_cannot_log_in(clock: Clock) -> None:
    store = sessions(clock)
    secret, session = begun(store)
    assert secret not in repr(vars(session))
    assert store.find(session.key) is None


async def test_a_logout_ends_the_session_on_the_server(browser: Browser) -> None:
    browser.log_in("viewer")
    assert (await browser.get("/")).status == 200
    assert (await browser.post("/logout")).location == "/login"
    browser.restore_cookie()
    assert (await browser.get("/")).status == 303


async def test_an_admin_sees_sessions_and_ends_one(browser: Browser, sql: Sql) -> None:
    browser.log_in("admin")
    async with Browser(browser.app) as other:
        other.log_in("viewer", name="cy")
        assert "cy" in (await browser.get("/sessions")).text
        assert other.session
        fields = {"key": other.session.key, "reason": "left the house"}
        assert (await browser.post("/sessions/end", fields)).status == 303
        assert (await other.get("/")).status == 303
    row = await sql.fetchrow("SELECT actor, subject FROM operator_log WHERE action = 'console.end-session'")
    assert (row["actor"], row["subject"]) == ("bo", "cy")


async def test_an_act_after_the_session_has_ended_does_nothing_and_says_so(served: Serve, sql: Sql) -> None:
    browser: Browser = await served(session_idle_seconds=0.001)
    browser.log_in("operator")
    page = await browser.post("/suppliers/nordsoft/pause", {"reason": "because"})
    assert (page.status, "nothing was done" in page.text) == (403, True)
    assert await sql.fetchval("SELECT count(*) FROM operator_log") == 0
