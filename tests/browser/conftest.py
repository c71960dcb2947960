"""A real browser against the real thing: RabbitMQ, PostgreSQL, broker processes, sandbox, pages. One Chromium per file."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from sandbox.jobnet.__main__ import serving
from sandbox.layout import default_layout
from scripts.chromium_dist import chromium
from scripts.postgres import PostgresServer
from scripts.rabbitmq import RabbitServer
from tests.functional.conftest import staged
from tests.functional.stage import Stage

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1100, "height": 800}
WAIT_MS = 30_000

NewPage = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    rabbit: RabbitServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """A broker that runs against the built-in layout."""
    async with staged(rabbit, postgres, tmp_path_factory.mktemp("stage"), default_layout()) as stage:
        await stage.start()
        yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def jobnet(stage: Stage) -> AsyncIterator[str]:
    """The address of the Jobnet page."""
    async with serving(stage.amqp_url, stage.sandbox.desk_url) as address:
        yield address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    found = chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=found.program, args=list(found.flags), env={**os.environ, **found.environment}
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def opened(browser: Browser, **how: Any) -> AsyncIterator[Page]:
    """A page in a context of its own. Whatever it complained of (errors, broken policy) fails the test."""
    how = {"viewport": DESK, "locale": "da-DK", "timezone_id": "Europe/Copenhagen", **how}
    context = await browser.new_context(**how)
    context.set_default_timeout(WAIT_MS)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    await context.close()
    assert complaints == []


@pytest_asyncio.fixture(loop_scope="module")
async def new_page(browser: Browser) -> AsyncIterator[NewPage]:
    """Opens pages, such as `await new_page(viewport=PHONE)`; they are closed at the end of the test."""
    async with AsyncExitStack() as stack:

        async def one(**how: Any) -> Page:
            return await stack.enter_async_context(opened(browser, **how))

        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def page(new_page: NewPage) -> Page:
    return await new_page()
