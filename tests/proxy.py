"""A TCP proxy for tests whose links can be cut, frozen and refused, as networks do."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class TcpProxy:
    """Listens on a free loopback port and passes bytes on to `host:port`. `async with TcpProxy(...) as proxy`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.WriteTransport] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self.port = 0

    async def __aenter__(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset every link there is; new ones are accepted."""
        for link in list(self._links):
            link.abort()

    def refuse(self, refusing: bool = True) -> None:
        """Cut every link and close new ones at once, until `refuse(False)`."""
        self._refusing = refusing
        if refusing:
            self.cut()

    def freeze(self, frozen: bool = True) -> None:
        """Keep the links open but pass nothing on: a half-open connection."""
        self._flowing.clear() if frozen else self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer.transport, back.transport}
        self._links |= ends
        try:
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        finally:
            self._links -= ends
            for end in ends:
                end.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
        sink.transport.abort()
