"""The connections to one base address that are kept between calls, and which of them a call may use."""

from __future__ import annotations

import asyncio
from collections import deque

from aiohttp.connector import Connection

from broker.clients.answer_protocol import AnswerProtocol

# Shorter than the idle timeouts of the usual servers (5 s and more). A create on a connection that the server is
# about to close would become Unknown for no reason.
KEEP_ALIVE_SECONDS = 4.0
# Each connection serves one call in each time of silence. Beyond this many the oldest are closed, so that a busy system
# does not use up the files of the process.
MOST_KEPT = 200


class KeptConnections:
    """Connections without a call, the one that was used longest ago first.

    One is used again only if it was silent for `quiet_s` since its last answer: a second answer to an earlier call has
    arrived by then, and nothing that arrived is read as the answer to the next call.
    """

    def __init__(self, quiet_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._quiet_s = quiet_s
        self._idle: deque[tuple[Connection, AnswerProtocol]] = deque()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self) -> Connection | None:
        """A connection that a call may use now, or None."""
        now = self._loop.time()
        self._close_old(now)
        while self._idle and now - self._idle[0][1].answered_at >= self._quiet_s:
            connection, protocol = self._idle.popleft()
            if protocol.is_connected() and not protocol.stray and not protocol.lies_anything():
                return connection
            connection.close()
        return None

    def keep(self, connection: Connection, protocol: AnswerProtocol) -> None:
        """Keep the connection of a call that was answered, or close it if it must not be used again."""
        if self._closed or protocol.should_close or self._quiet_s >= KEEP_ALIVE_SECONDS:
            connection.close()
            return
        if len(self._idle) >= MOST_KEPT:
            self._idle.popleft()[0].close()
        self._idle.append((connection, protocol))
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(KEEP_ALIVE_SECONDS, self._sweep)

    def close(self) -> None:
        """Close all of them; later ones are not kept."""
        self._closed = True
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        while self._idle:
            self._idle.popleft()[0].close()

    def _sweep(self) -> None:
        self._close_old(self._loop.time())
        again = self._idle and not self._closed
        self._sweep_timer = self._loop.call_later(KEEP_ALIVE_SECONDS, self._sweep) if again else None

    def _close_old(self, now: float) -> None:
        while self._idle and now - self._idle[0][1].answered_at > KEEP_ALIVE_SECONDS:
            self._idle.popleft()[0].close()
