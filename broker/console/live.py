"""What renews itself: one look at the ledger for everybody who watches, as long as anybody does (server-sent events).

Bounded: so many listeners, few of one session, and none of them has a queue: who is slow gets the newest look next.
A stream ends with its session, with the console, or when its browser does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from aiohttp import web

from broker.console.context import SESSIONS, who
from broker.errors import LedgerAway
from broker.tasks import cancel_and_wait
from broker.telemetry.log import get_logger

log = get_logger("console")

MOST_OF_ONE = 6
"""Streams of one session: a browser opens no more to one address anyway."""
WRITE_S = 10.0
"""How long a browser may take to read one event."""
HEADERS = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}

AWAY = '<p class="problem">The ledger (PostgreSQL) cannot be reached; this page goes on when it is back.</p>'

RenderPage = Callable[[], Awaitable[str]]


class Full(web.HTTPServiceUnavailable):
    """There are as many listeners as there may be."""

    def __init__(self) -> None:
        super().__init__(
            text="as many pages renew themselves as may; this one shows how it was when it was opened"
        )


class Live:
    """One look, again and again, for its listeners."""

    def __init__(self, look: RenderPage, every_s: float) -> None:
        self._look = look
        self._every_s = every_s
        self._listeners = 0
        self._text = ""
        self._number = 0
        self._fresh = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Somebody watches; the first one starts the looks, the last one ends them."""
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
        """The newest look that is newer than `number`."""
        while self._number <= number:
            await self._fresh.wait()
        return self._number, self._text

    def wake(self) -> None:
        """Let everybody look up."""
        self._number += 1
        fresh, self._fresh = self._fresh, asyncio.Event()
        fresh.set()

    async def _run(self) -> None:
        while True:
            try:
                self._text = await self._look()
            except LedgerAway:
                self._text = AWAY
            except Exception:
                log.exception("live-look-failed")
                self._text = ""  # tells nothing, and the next look may be better
            self.wake()
            await asyncio.sleep(self._every_s)


class LiveStreams:
    """Who listens, over all pages."""

    def __init__(self, lives: Mapping[str, Live], most: int) -> None:
        self._lives = lives
        self._most = most
        self._of: Counter[str] = Counter()
        self._closed = False

    def close(self) -> None:
        """The console stops: every stream ends."""
        self._closed = True
        for live in self._lives.values():
            live.wake()

    @property
    def open(self) -> int:
        """How many there are."""
        return self._of.total()

    async def serve(self, request: web.Request, name: str) -> web.StreamResponse:
        """A stream of the looks of this name. Raises Full."""
        key = who(request).key
        if self.open >= self._most or self._of[key] >= MOST_OF_ONE:
            raise Full
        self._of[key] += 1
        try:
            response = web.StreamResponse(headers=HEADERS)
            await response.prepare(request)
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with self._lives[name].listening():
                    await self._tell(request, response, self._lives[name])
            return response
        finally:
            self._of[key] -= 1
            self._of += Counter()  # forgets who has none

    async def _tell(self, request: web.Request, response: web.StreamResponse, live: Live) -> None:
        sessions, session, number = request.app[SESSIONS], who(request), 0
        while True:
            number, text = await live.after(number)
            if self._closed or not sessions.alive(session):
                return
            async with asyncio.timeout(WRITE_S):
                await response.write(event(text))


STREAMS = web.AppKey("streams", LiveStreams)


def event(text: str) -> bytes:
    """One server-sent event: each line of the text is one of its lines."""
    return "".join(f"data: {line}\n" for line in text.splitlines()).encode() + b"\n"
