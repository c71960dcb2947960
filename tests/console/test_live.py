"""The overview updates itself: all listeners share one rendering; streams end with the session and the console."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from broker.console import live
from broker.console.context import SESSIONS
from broker.console.live import AWAY, MOST_PER_SESSION, STREAMS, Live, event
from broker.console.session_store import Session
from broker.errors import LedgerAway
from tests.console.browser import Browser
from tests.console.conftest import Serve
from tests.ledger.dead import dead_reports
from tests.ledger.support import Sql
from tests.support import poll

QUICK = {"live_every_seconds": 0.05}


@pytest.fixture
async def quick(served: Serve) -> Browser:
    """A browser for a console that renders often; a viewer is logged in."""
    browser: Browser = await served(**QUICK)
    return browser.log_in("viewer")


def session_of(browser: Browser) -> Session:
    assert browser.session
    return browser.session


async def test_a_new_dead_letter_appears_in_the_stream(quick: Browser, sql: Sql) -> None:
    async with quick.stream("/events") as stream:
        first = await stream.next()
        assert first
        assert "marked-cause" not in first
        await dead_reports(sql, 2, cause="marked-cause")

        async def told() -> bool:
            return "marked-cause" in (await stream.next() or "")

        await poll(told, what="the dead letters")


async def test_a_stream_sends_what_the_page_shows(quick: Browser) -> None:
    page = await quick.get("/?range=24h")
    async with quick.stream("/events?range=24h") as stream:
        told = await stream.next()
    assert told
    assert "Flow, the last 24 hours" in told
    assert "Flow, the last 24 hours" in page.text
    assert 'data-events="/events?range=24h"' in page.text
    assert "<html" not in told


async def test_a_stream_ends_with_its_session(quick: Browser) -> None:
    async with quick.stream("/events") as stream:
        assert await stream.next()
        quick.app[SESSIONS].end(session_of(quick).key)
        await poll(lambda: ended(stream), what="the end of the stream")
    assert (await quick.get("/events")).status == 303


async def test_a_stream_does_not_keep_a_session_alive(served: Serve) -> None:
    browser: Browser = await served(**QUICK, session_idle_seconds=0.5)
    browser.log_in("viewer")
    async with browser.stream("/events") as stream:
        await poll(lambda: ended(stream), what="the session's end by idleness")
    assert (await browser.get("/")).status == 303


async def test_the_number_of_streams_is_limited(served: Serve) -> None:
    browser: Browser = await served(**QUICK, listeners_most=2)
    browser.log_in("viewer")
    async with AsyncExitStack() as stack:
        for _ in range(2):
            stream = await stack.enter_async_context(browser.stream("/events"))
            assert await stream.next()
        refused = await browser.get("/events")
        assert (refused.status, "too many pages update themselves" in refused.text) == (503, True)
        assert (await browser.get("/")).status == 200
    await poll(lambda: browser.app[STREAMS].open == 0, what="the end of the streams")
    async with browser.stream("/events") as again:
        assert await again.next()


async def test_the_number_of_streams_per_session_is_limited(quick: Browser) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(MOST_PER_SESSION):
            assert await (await stack.enter_async_context(quick.stream("/events"))).next()
        assert (await quick.get("/events")).status == 503
        quick.log_in("viewer", name="ann")
        assert (await quick.get("/events")).status == 200


async def test_the_stream_of_a_browser_that_does_not_read_ends(
    quick: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck(self: web.StreamResponse, data: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(live, "WRITE_S", 0.05)
    monkeypatch.setattr(web.StreamResponse, "write", stuck)
    async with quick.stream("/events") as stream:
        await poll(lambda: ended(stream), what="the end of the stream")
    await poll(lambda: quick.app[STREAMS].open == 0, what="the end of the stream in the console")


async def test_a_stopping_console_ends_every_stream(quick: Browser) -> None:
    async with quick.stream("/events") as stream:
        assert await stream.next()
        quick.app[STREAMS].close()
        await poll(lambda: ended(stream), what="the end of the stream")


async def test_streams_need_a_login(served: Serve) -> None:
    browser: Browser = await served(**QUICK)
    assert (await browser.get("/events")).status == 303


class TestLive:
    async def test_listeners_share_one_rendering_that_ends_with_the_last_of_them(self) -> None:
        renderings = 0

        async def render() -> str:
            nonlocal renderings
            renderings += 1
            return f"rendering {renderings}"

        shared = Live(render, 0.02)
        async with AsyncExitStack() as stack:
            for _ in range(50):
                await stack.enter_async_context(shared.listening())
            told = await asyncio.gather(*(shared.after(0) for _ in range(50)))
            assert {text for _, text in told} == {"rendering 1"}
            assert (await shared.after(2))[1] == "rendering 3"
        before = renderings
        assert shared._task is None
        async with shared.listening():
            assert (await shared.after(0))[1] == f"rendering {before + 1}"

    async def test_an_unreachable_ledger_is_reported_until_it_is_back(self) -> None:
        away = True

        async def render() -> str:
            if away:
                raise LedgerAway("gone")
            return "here"

        shared = Live(render, 0.01)
        async with shared.listening():
            number, text = await shared.after(0)
            assert text == AWAY
            away = False

            async def back() -> bool:
                return (await shared.after(number))[1] == "here"

            await poll(back, what="the ledger")

    async def test_a_failed_rendering_ends_no_stream(self) -> None:
        broken = True

        async def render() -> str:
            if broken:
                raise ValueError
            return "here"

        shared = Live(render, 0.01)
        async with shared.listening():
            number, text = await shared.after(0)
            assert text == ""
            broken = False

            async def back() -> bool:
                return (await shared.after(number))[1] == "here"

            await poll(back, what="the next rendering")

    def test_every_line_of_an_event_has_the_data_prefix(self) -> None:
        assert event("<p>\n</p>\r\nx") == b"data: <p>\ndata: </p>\ndata: x\n\n"


async def ended(stream: Any) -> bool:
    return await stream.next() is None
