"""aiohttp's side of a connection, with what it leaves out: bytes that no call asked for, and bytes after a 204.

An answer belongs to its call (docs/contract.md#calls). A server or a proxy that answers twice must not have
its second answer taken for the answer to the next call on the same connection.
"""

from __future__ import annotations

import asyncio
import select
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from broker.telemetry.log import get_logger

log = get_logger("clients")

READ_BUFFER_BYTES = 65_536
_NO_CONTENT_STARTS = (b"HTTP/1.1 204", b"HTTP/1.0 204")
_HEAD_END = b"\r\n\r\n"


class AnswerProtocol(ResponseHandler):
    """Reads the answers on one connection. `answered_at`: loop time of the end of the last one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, system: str) -> None:
        super().__init__(loop=loop)
        self._system = system
        self._expecting = False
        self._first = False
        self._poll: select.poll | None = None
        self.stray = False
        self.answered_at = 0.0

    def begin(self, *, skip_payload: bool) -> None:
        """A request is written right after this: what comes from now on is its answer."""
        self._expecting = self._first = True
        self.set_response_params(
            skip_payload=skip_payload,
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
        )

    def end(self, now: float) -> None:
        """The answer was read: what comes from now on belongs to no call."""
        self._expecting, self.answered_at = False, now
        if self._buffer:
            self._out_of_turn()

    def lies_anything(self) -> bool:
        """Whether something that the event loop has not read yet lies in the socket; also the end of the connection."""
        if self._poll is None:
            if self.transport is None:
                return True
            self._poll = select.poll()
            self._poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))

    def data_received(self, data: bytes) -> None:
        """Pass the bytes of an answer to the parser; end the connection on bytes that no call asked for."""
        if not self._expecting:
            self._out_of_turn()
            if self.transport is not None:
                self.transport.abort()
            return
        if self._first:
            self._first = False
            # Some servers send "0\r\n\r\n" or a body after a 204. In one packet with the head, it makes the parser
            # drop the answer.
            if data.startswith(_NO_CONTENT_STARTS) and (end := data.find(_HEAD_END)) >= 0:
                end += len(_HEAD_END)
                if len(data) > end:
                    self.force_close()
                data = data[:end]
        super().data_received(data)

    def _out_of_turn(self) -> None:
        if not self.stray:
            log.warning("answer-out-of-turn", system=self._system)
        self.stray = True
        self.force_close()


class AnswerConnector(aiohttp.TCPConnector):
    """A connector whose connections are read by `AnswerProtocol`."""

    def __init__(self, system: str, **options: Any) -> None:
        super().__init__(**options)
        # aiohttp has no public way to name the protocol; a test of ours fails if this stops working.
        self._factory = partial(AnswerProtocol, loop=self._loop, system=system)  # type: ignore[assignment]
