"""Builds the console from its table of routes, and serves it until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiohttp import web

from broker import ops
from broker.console import view
from broker.console.access import check_access
from broker.console.context import (
    LINKS,
    NAVIGATION,
    OPERATIONS,
    PASSWORDS,
    SESSIONS,
    SETTINGS,
    NavigationEntry,
)
from broker.console.links import Links
from broker.console.page_routes import TABLE
from broker.console.pages import overview
from broker.console.passwords import Passwords
from broker.console.rights import Right
from broker.console.security_headers import add_headers
from broker.console.session_store import Sessions
from broker.console.table import PageRoute, add_rows, check_rows
from broker.console.troubles import error_pages
from broker.ops import Operations
from broker.tasks import StopSignals
from broker.telemetry import log as logging
from broker.telemetry.log import get_logger
from config.settings import Settings

log = get_logger("console")
MOST_BODY_BYTES = 64 * 1024
SHUTDOWN_S = 5.0


def build(settings: Settings, operations: Operations, table: Iterable[PageRoute] = TABLE) -> web.Application:
    """The application. Raises TableBroken if an address has no right."""
    routes = tuple(table)
    app = web.Application(middlewares=[error_pages, check_access], client_max_size=MOST_BODY_BYTES)
    app[SETTINGS], app[OPERATIONS] = settings, operations
    app[SESSIONS] = Sessions(settings.console)
    app[PASSWORDS] = Passwords(settings.console)
    app[LINKS] = Links(operations.sealer, settings.console.link_seconds)
    app[NAVIGATION] = tuple(
        NavigationEntry(route.title, route.path, route.needs)
        for route in routes
        if route.title and isinstance(route.needs, Right)
    )
    view.configure_templates(app)
    overview.configure_streams(app)
    add_rows(app, routes)
    check_rows(app)
    app.on_response_prepare.append(add_headers)
    return app


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises LedgerAway, and OSError if the address is in use."""
    stop = StopSignals()
    with stop.during_start():
        logging.watch(asyncio.get_running_loop())
        await _serve(settings, stop)


async def _serve(settings: Settings, stop: StopSignals) -> None:
    async with ops.open_operations(settings) as operations:
        runner = web.AppRunner(
            build(settings, operations), access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_S
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.console.host, settings.console.port).start()
            log.info("console-started", host=settings.console.host, port=settings.console.port)
            await stop.started_and_told()
        finally:
            await runner.cleanup()
