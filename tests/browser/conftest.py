"""A real browser against the real thing: RabbitMQ, PostgreSQL, broker processes, sandbox, pages. One Chromium per file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from sandbox.jobnet.__main__ import serving
from sandbox.system_layout import default_layout
from scripts import playwright_driver
from scripts.chromium_dist import chromium
from scripts.postgres import PostgresServer
from scripts.processes import free_port, listens
from scripts.rabbitmq import RabbitServer
from tests.functional.conftest import prepared_broker
from tests.functional.running_broker import Process, RunningBroker
from tests.support import poll

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1100, "height": 800}
# For a machine that does much at once; what is there sooner is not waited for.
WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)

NewPage = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(
    rabbit: RabbitServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningBroker]:
    """A broker that runs against the built-in layout."""
    async with prepared_broker(
        rabbit, postgres, tmp_path_factory.mktemp("broker"), default_layout()
    ) as broker:
        await broker.start()
        yield broker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def jobnet(broker: RunningBroker) -> AsyncIterator[str]:
    """The address of the Jobnet page."""
    async with serving(broker.amqp_url, broker.sandbox.desk_url) as address:
        yield address


@dataclass(frozen=True)
class Console:
    """The operators' console as a process of its own, and a way in for each role."""

    broker: RunningBroker
    address: str
    environment: dict[str, str]

    async def log_in(self, page: Page, *roles: str) -> None:
        """By a one-time link, as whoever holds the keys makes it."""
        words = [f"--role={role}" for role in roles]
        code, out, err = await self.broker.call(
            "console", "link", "--as", roles[0], *words, changes=self.environment
        )
        assert code == 0, err
        await page.goto(out.strip())
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url(f"{self.address}/")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def console(broker: RunningBroker) -> AsyncIterator[Console]:
    port = free_port()
    settings = {"JOBNET_BROKER__CONSOLE__PORT": str(port)}
    log = broker.folder / "console.log"
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: ASYNC220 - starts in a moment
            broker.command("console"), env=broker.environment(settings), stdout=out, stderr=out
        )
    broker.processes.append(Process(process, log))  # ends with the broker
    await poll(
        lambda: listens(port) or process.poll() is not None, timeout=30, what=f"the console, see {log}"
    )
    assert process.poll() is None, log.read_text()[-3000:]
    yield Console(broker, f"http://127.0.0.1:{port}", settings)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    found = chromium()
    async with AsyncExitStack() as stack:
        with pytest.MonkeyPatch.context() as changed:  # the driver takes its environment from this process
            for name, value in playwright_driver.environment().items():
                changed.setenv(name, value)
            playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(
            executable_path=found.program, args=list(found.flags), env={**os.environ, **found.environment}
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def opened(browser: Browser, *, refusals: bool = False, **how: Any) -> AsyncIterator[Page]:
    """A page in a context of its own. Whatever it complained of (errors, broken policy) fails the test.

    `refusals`: addresses that answer 403 are what the test is about.
    """
    how = {"viewport": DESK, "locale": "da-DK", "timezone_id": "Europe/Copenhagen", **how}
    context = await browser.new_context(**how)
    context.set_default_timeout(WAIT_MS)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    await context.close()
    assert [said for said in complaints if not (refusals and "status of 403" in said)] == []


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
