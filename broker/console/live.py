"""Server-sent events: pages that update themselves. All listeners of a page share one rendering.

A page is rendered only while it has listeners. The number of listeners is limited, in all and for each session.
Listeners have no queue: a slow one skips renderings and gets the newest. A stream ends with its session, with the
console, or when its browser does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from aiohttp import web

from broker.console.context import SESSIONS, user_of
from broker.errors import LedgerAway
from broker.tasks import cancel_and_wait
from broker.telemetry.log import get_logger

log = get_logger("console")

MOST_PER_SESSION = 6
"""Most streams of one session. Browsers open no more connections than that to one address."""
WRITE_S = 10.0
"""Seconds that a browser may take to read one event."""
HEADERS = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}

AWAY = (
    '<p class="problem">The ledger (PostgreSQL) cannot be reached; this page continues when it is back.</p>'
)

RenderPage = Callable[[], Awaitable[str]]


class Full(web.HTTPServiceUnavailable):
    """The limit of listeners is reached."""

    def __init__(self) -> None:
        super().__init__(
            text="too many pages update themselves; this page stays as it was when it was opened"
        )


class Live:
    """Renders one page again and again for its listeners."""

    def __init__(self, render: RenderPage, every_s: float) -> None:
        self._render = render
        self._every_s = every_s
        self._listeners = 0
        self._text = ""
        self._number = 0
        self._rendered = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Register a listener. The first listener starts the rendering, the last one ends it."""
        self._listeners += 1
        self._task = self._task or asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners and self._task:
                task, self._task, self._number = self._task, None, 0
                await cancel_and_wait((task,))

    async def after(self, number: int) -> tuple[int, str]:
        """Wait for a rendering newer than `number`; returns its number and text."""
        while self._number <= number:
            await self._rendered.wait()
        return self._number, self._text

    def wake(self) -> None:
        """Wake all listeners."""
        self._number += 1
        rendered, self._rendered = self._rendered, asyncio.Event()
        rendered.set()

    async def _run(self) -> None:
        while True:
            try:
                self._text = await self._render()
            except LedgerAway:
                self._text = AWAY
            except Exception:
                log.exception("live-render-failed")
                # An empty event changes nothing on the page; the next rendering may succeed.
                self._text = ""
            self.wake()
            await asyncio.sleep(self._every_s)


class LiveStreams:
    """The open streams of all pages."""

    def __init__(self, lives: Mapping[str, Live], most: int) -> None:
        self._lives = lives
        self._most = most
        self._by_session: Counter[str] = Counter()
        self._closed = False

    def close(self) -> None:
        """End every stream, because the console stops."""
        self._closed = True
        for live in self._lives.values():
            live.wake()

    @property
    def open(self) -> int:
        """Number of open streams."""
        return self._by_session.total()

    async def serve(self, request: web.Request, name: str) -> web.StreamResponse:
        """Send the page `name` as a stream of events. Raises Full."""
        key = user_of(request).key
        if self.open >= self._most or self._by_session[key] >= MOST_PER_SESSION:
            raise Full
        self._by_session[key] += 1
        try:
            response = web.StreamResponse(headers=HEADERS)
            await response.prepare(request)
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with self._lives[name].listening():
                    await self._send(request, response, self._lives[name])
            return response
        finally:
            self._by_session[key] -= 1
            # Removes the sessions whose count is 0.
            self._by_session += Counter()

    async def _send(self, request: web.Request, response: web.StreamResponse, live: Live) -> None:
        sessions, session, number = request.app[SESSIONS], user_of(request), 0
        while True:
            number, text = await live.after(number)
            if self._closed or not sessions.alive(session):
                return
            async with asyncio.timeout(WRITE_S):
                await response.write(event(text))


STREAMS = web.AppKey("streams", LiveStreams)


def event(text: str) -> bytes:
    """One server-sent event. Every line of the text needs its own `data:`."""
    return "".join(f"data: {line}\n" for line in text.splitlines()).encode() + b"\n"
