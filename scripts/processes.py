"""Starting a server under a keeper (see keeper.py), and what goes with it: ports, waits, log tails.

Only the Linux and macOS ways of processes are used. Nothing here restarts a server.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from shutil import rmtree

from scripts import keeper

ROOT = Path(__file__).resolve().parents[1]
LOCAL = ROOT / ".local"
# Below the range from which the kernel takes ports for outgoing connections: ours stay free over a restart.
PORTS = range(15_000, 32_000)
KEEPER = Path(keeper.__file__)


class StartFailed(Exception):
    """A server did not come up; the message holds the end of its log."""


def say(text: str) -> None:
    """A progress line for a person; standard output stays for results."""
    print(f"  {text}", file=sys.stderr, flush=True)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise StartFailed(f"no free port between {PORTS.start} and {PORTS.stop}")


def listens(port: int) -> bool:
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
    """A running server with its keeper. It ends with this process, whatever happens to this process."""

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
                start_new_session=True,  # Ctrl-C is ours to handle, not the server's
            )
        _running.add(self)
        assert self._keeper.stdout is not None  # noqa: S101 - for the type checker: it is a PIPE
        self.pid = int(self._keeper.stdout.readline() or 0)

    def alive(self) -> bool:
        return self.pid != 0 and self._keeper.poll() is None

    def stop(self) -> None:
        """Ask the server to end, wait until it and all it started are gone."""
        self._order(keeper.STOP)

    def kill(self) -> None:
        """SIGKILL for the server, at once; return when it and all it started are gone."""
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
    """A normal exit waits for the servers; after any other, the keepers do without us."""
    for kept in list(_running):
        kept.stop()


def wait_until(condition: Callable[[], bool], kept: Kept, *, timeout_s: float, what: str, log: Path) -> None:
    """Poll `condition`; raise StartFailed with the log when the server ends first or the time is over."""
    until = time.monotonic() + timeout_s
    while not condition():
        if not kept.alive() or time.monotonic() > until:
            how = "ended" if not kept.alive() else f"was not ready after {timeout_s:.0f} s"
            kept.kill()
            raise StartFailed(f"{what} {how}. The end of {log}:\n{tail(log)}\n{tail(kept.log, 10)}")
        time.sleep(0.05)


@contextlib.contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """A new folder under `parent`, removed at the end; so are those that a killed process left there."""
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
    """Whoever lives there holds a lock; a minute's grace covers the moment between making and locking."""
    with contextlib.suppress(OSError):
        if time.time() - folder.stat().st_mtime < 60:
            return False
        with (folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


@contextlib.contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold the lock file `path`; say `waiting` when another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(waiting)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def clean_environment(**more: str) -> dict[str, str]:
    """The little that a server needs from us: nobody's RABBITMQ_ or PG settings leak in."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "LANG": "C.UTF-8", **more}
