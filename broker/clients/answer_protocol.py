"""aiohttp's side of a connection, with what it leaves out: bytes after a 204."""

from __future__ import annotations

from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

_NO_CONTENT_STARTS = (b"HTTP/1.1 204", b"HTTP/1.0 204")
_HEAD_END = b"\r\n\r\n"


class AnswerProtocol(ResponseHandler):
    """Reads answers. A 204 ends with its head, whatever follows; then the connection is not used again."""

    _first = True

    def set_response_params(self, **params: Any) -> None:
        """Prepare for the next answer."""
        self._first = True
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Pass the bytes of an answer to the parser."""
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


class AnswerConnector(aiohttp.TCPConnector):
    """A connector whose connections are read by `AnswerProtocol`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # aiohttp has no public way to name the protocol; a test of ours fails if this stops working.
        self._factory = partial(AnswerProtocol, loop=self._loop)  # type: ignore[assignment]
