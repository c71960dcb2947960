"""A worker's health server: `/healthz` (alive), `/readyz` (ready, or the reasons why not), `/metrics`.

It reads the state of the process and never the ledger, so frequent requests cost little. If the port is in use, the
worker runs without it and tries again until the port is free.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Self

from aiohttp import web

from broker.health.metrics import Metrics
from broker.health.vitals import Vitals
from broker.tasks import cancel_and_wait
from broker.telemetry.log import get_logger
from config.health_sections import HealthSettings

log = get_logger("health")

AGAIN_S = 2.0
"""Pause between two tries to bind the port."""
LAG_EVERY_S = 0.5
"""Interval of the measurement of the event loop's lag."""
FRESH_S = 1.0
"""How long the text of /metrics is reused, so that frequent scrapes do not delay requests."""
TEXT = "text/plain; version=0.0.4; charset=utf-8"


class HealthServer:
    """An async context manager that serves while it is open; with port 0 it does nothing."""

    def __init__(self, settings: HealthSettings, vitals: Vitals) -> None:
        self._settings = settings
        self._vitals = vitals
        self._metrics = Metrics(vitals)
        self._text, self._text_at = b"", float("-inf")
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        if self._settings.port:
            self._tasks = [asyncio.create_task(self._serve()), asyncio.create_task(self._measure_lag())]
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_and_wait(self._tasks)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self) -> None:
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._show),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        host, port = self._settings.host, self._settings.port
        logged = False
        while True:
            try:
                await web.TCPSite(self._runner, host, port).start()
                break
            except OSError as error:
                if not logged:
                    log.error("health-not-served", port=port, reason=error.strerror or type(error).__name__)
                    logged = True
                await asyncio.sleep(AGAIN_S)
        log.info("health-served", port=port)

    async def _healthz(self, _: web.Request) -> web.Response:
        """Liveness: the event loop is running."""
        return web.Response(text="alive\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        await self._vitals.probe_alarms()
        if why := self._vitals.why_not_ready():
            return web.Response(text="".join(f"not ready: {reason}\n" for reason in why), status=503)
        return web.Response(text="ready\n")

    async def _show(self, _: web.Request) -> web.Response:
        if monotonic() - self._text_at > FRESH_S:
            await self._vitals.probe_alarms()
            self._text, self._text_at = self._metrics.text(), monotonic()
        return web.Response(body=self._text, headers={"Content-Type": TEXT})

    async def _measure_lag(self) -> None:
        """Measure how late the event loop wakes this task; it is as late for all others."""
        while True:
            due = monotonic() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self._vitals.counters.lags[()].add(max(0.0, monotonic() - due))
