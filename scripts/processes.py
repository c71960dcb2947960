"""Starts and stops servers under a keeper (see keeper.py), with ports, waits and log tails. For Linux and macOS.

No server is restarted by itself.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from types import TracebackType
from typing import ClassVar, Self

from scripts import keeper

ROOT = Path(__file__).resolve().parents[1]
LOCAL = ROOT / ".local"
# Below the range from which the kernel takes ports for outgoing connections, so that a port stays free over a restart.
PORTS = range(15_000, 32_000)
KEEPER = Path(keeper.__file__)


class StartFailed(Exception):
    """A server or program cannot be started; the message says why, with the end of the log if there is one."""


def say(text: str) -> None:
    """Print a line of progress on standard error; standard output is for results."""
    print(f"  {text}", file=sys.stderr, flush=True)


def free_port() -> int:
    """A loopback port that is free now. Raises StartFailed when there is none."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise StartFailed(f"no free port between {PORTS.start} and {PORTS.stop}")


def listens(port: int) -> bool:
    """Whether a server accepts connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def tail(path: Path, lines: int = 30) -> str:
    """The last lines of a log, or why there are none."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"(no log: {error})"


class Kept:
    """A running server with its keeper. It ends when this process ends, also by SIGKILL.

    `stop_signal` asks the server to stop; after `grace_s` seconds it is killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        stop_signal: int = signal.SIGTERM,
        grace_s: float = 20.0,
    ) -> None:
        self.log = log
        self.grace_s = grace_s
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(
                [
                    sys.executable,
                    str(KEEPER),
                    f"--signal={int(stop_signal)}",
                    f"--grace={grace_s}",
                    "--",
                    *command,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                bufsize=0,
                env=env,
                start_new_session=True,  # Ctrl-C reaches this process only, which then stops the server
            )
        _running.add(self)
        assert self._keeper.stdout is not None  # noqa: S101 - for the type checker: it is a PIPE
        self.pid = int(self._keeper.stdout.readline() or 0)

    def alive(self) -> bool:
        return self.pid != 0 and self._keeper.poll() is None

    def stop(self) -> None:
        """Ask the server to stop; return when it and all its children are gone."""
        self._order(keeper.STOP)

    def kill(self) -> None:
        """Send the server SIGKILL; return when it and all its children are gone."""
        self._order(keeper.KILL)

    def _order(self, order: bytes) -> None:
        assert self._keeper.stdin is not None  # noqa: S101 - for the type checker: it is a PIPE
        assert self._keeper.stdout is not None  # noqa: S101 - for the type checker: it is a PIPE
        with contextlib.suppress(OSError, ValueError), self._keeper.stdin:  # it may have ended already
            self._keeper.stdin.write(order)
        self._keeper.wait(self.grace_s + 15)
        self._keeper.stdout.close()
        _running.discard(self)


_running: weakref.WeakSet[Kept] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Wait for the servers at a normal exit; after any other exit the keepers stop them alone."""
    for kept in list(_running):
        kept.stop()


def wait_until(condition: Callable[[], bool], kept: Kept, *, timeout_s: float, what: str, log: Path) -> None:
    """Poll `condition`. Raises StartFailed with the log when the server ends first or after `timeout_s` seconds."""
    until = time.monotonic() + timeout_s
    while not condition():
        if not kept.alive() or time.monotonic() > until:
            how = "ended" if not kept.alive() else f"was not ready after {timeout_s:.0f} s"
            kept.kill()
            raise StartFailed(f"{what} {how}. The end of {log}:\n{tail(log)}\n{tail(kept.log, 10)}")
        time.sleep(0.05)


class PrivateServer(ABC):
    """A server of this process in a folder of its own, also as a context manager. Its data outlives stop and start."""

    title: ClassVar[str]
    start_timeout_s: ClassVar[float]
    directory: Path
    _server: Kept | None = None

    @property
    @abstractmethod
    def log(self) -> Path:
        """The server's own log."""

    @abstractmethod
    def _launch(self) -> Kept:
        """Prepare the folder and start the process."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether the server answers."""

    @property
    def pid(self) -> int:
        """The server's process id, 0 when it was not started."""
        return self._server.pid if self._server else 0

    @property
    def alive(self) -> bool:
        return self._server is not None and self._server.alive()

    def start(self) -> None:
        """Start and wait until the server answers. Raises StartFailed with the end of the log."""
        if self.alive:
            return
        self.stop()  # what a killed server left
        self._server = self._launch()
        timeout_s = self.start_timeout_s
        wait_until(self._ready, self._server, timeout_s=timeout_s, what=self.title, log=self.log)

    def stop(self) -> None:
        """Stop the server in good order; none of its processes runs afterwards. May be repeated."""
        self._end(Kept.stop)

    def kill(self) -> None:
        """Send the server SIGKILL, as a power cut would end it; none of its processes runs afterwards."""
        self._end(Kept.kill)

    def restart(self) -> None:
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self, how: Callable[[Kept], None]) -> None:
        server, self._server = self._server, None
        if server:
            how(server)


def run_for_a_person(name: str, server: Callable[[Path], PrivateServer], *addresses: str) -> None:
    """Run a private server until Ctrl-C, in a folder under .local/NAME; prints these attributes of the server."""
    with (
        contextlib.suppress(KeyboardInterrupt),
        private_folder(LOCAL / name) as folder,
        server(folder) as node,
    ):
        print(*(getattr(node, address) for address in addresses), flush=True)
        while True:
            time.sleep(3600)


@contextlib.contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """A new folder under `parent`, removed at the end, together with folders that killed processes left there."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob("run-*"):
        if _is_abandoned(left):
            rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Whether no process holds the folder's lock."""
    with contextlib.suppress(OSError):
        # Its process may be between making and locking it.
        if time.time() - folder.stat().st_mtime < 60:
            return False
        with (folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


@contextlib.contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold the lock file `path`; print `waiting` when another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(waiting)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def clean_environment(**more: str) -> dict[str, str]:
    """The environment of a private server: no RABBITMQ_ or PG variables of the user reach it."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "LANG": "C.UTF-8", **more}
