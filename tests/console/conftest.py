"""Fixtures: the console as a server, with a real ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from broker.console.web_app import build
from broker.ledger.operators.operations import Operations
from config.console_section import ConsoleSettings
from config.sections import DirectorySettings
from config.settings import DEFAULTS, Settings
from scripts.processes import free_port
from tests.console.browser import Browser

Serve = Callable[..., Any]


@pytest.fixture
async def served(settings: Settings, operations: Operations) -> AsyncIterator[Serve]:
    """A function that serves a console with these `[console]` settings and returns a browser for it."""
    async with AsyncExitStack() as stack:

        async def serve(*, directory: Path | None = None, **console: Any) -> Browser:
            section = ConsoleSettings(**{"port": free_port(), **console})
            file = DirectorySettings(file=directory or DEFAULTS.with_name("directory.toml"))
            app = build(settings.model_copy(update={"console": section, "directory": file}), operations)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", section.port).start()
            return await stack.enter_async_context(Browser(app))

        yield serve


@pytest.fixture
async def browser(served: Serve) -> Browser:
    """A browser for a console with the default settings; not logged in."""
    browser: Browser = await served()
    return browser
