"""A TCP proxy that can drop the server's answers: the client does not learn whether its COMMIT was made."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit


class LossyProxy:
    """Listens on a free loopback port. `async with LossyProxy(dsn) as proxy`, then connect to `proxy.dsn`."""

    def __init__(self, dsn: str) -> None:
        self._at = urlsplit(dsn)
        self._links: set[asyncio.StreamWriter] = set()
        self.swallowing = False
        self.refusing = False

    async def __aenter__(self) -> LossyProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        netloc = self._at.netloc.replace(f":{self._at.port}", f":{port}")
        self.dsn = urlunsplit(self._at._replace(netloc=netloc))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection; new ones work (unless `refusing`)."""
        for link in list(self._links):
            link.transport.abort()

    def lose_answers(self) -> None:
        """From now on requests reach the server, and answers do not reach the client."""
        self.swallowing = True

    def recover(self) -> None:
        """Cut the connections and pass everything on again."""
        self.swallowing = self.refusing = False
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._at.hostname
        if self.refusing:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(self._at.hostname, self._at.port)
        self._links |= {writer, back}
        try:
            await asyncio.gather(self._forward(reader, back), self._forward(there, writer, answers=True))
        finally:
            self._links -= {writer, back}

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if not (answers and self.swallowing):
                    sink.write(data)
        sink.transport.abort()
