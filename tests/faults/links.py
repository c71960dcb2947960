"""TCP links that can be slow, cut off after so many bytes, and that pick a living one of several servers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from tests.proxy import TcpProxy

CONNECT_S = 1.0


class Link(TcpProxy):
    """`delay`: seconds for each piece, both ways. `answer_bytes`: a link is reset after so many of the server's."""

    def __init__(self, targets: Sequence[tuple[str, int]]) -> None:
        super().__init__(*targets[0])
        self.targets = list(targets)
        self.delay = 0.0
        self.answer_bytes: int | None = None
        self._clients: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Link:
        await super().__aenter__()
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self.targets) > 1:
            self._target = await self._living()
        self._clients.add(writer)
        try:
            await super()._serve(reader, writer)
        finally:
            self._clients.discard(writer)

    async def _living(self) -> tuple[str, int]:
        """The next server in turn that lets us connect; the first one if none does."""
        self.targets.append(self.targets.pop(0))
        for target in self.targets:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_S):
                    _, probe = await asyncio.open_connection(*target)
                probe.transport.abort()
                return target
        return self.targets[0]

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        answers, passed = sink in self._clients, 0
        with suppress(OSError):
            while data := await source.read(65536):
                await self._flowing.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if answers and self.answer_bytes is not None:
                    data = data[: max(0, self.answer_bytes - passed)]
                    passed += len(data)
                sink.write(data)
                await sink.drain()
                if answers and self.answer_bytes is not None and passed >= self.answer_bytes:
                    break
        sink.transport.abort()
