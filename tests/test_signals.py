"""Signals at any moment: a process that is told to stop while it starts ends at once; no worker outlives its parent.

No server is needed: RabbitMQ and PostgreSQL are one socket that accepts and says nothing, so a start never ends.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from config.settings import DEFAULTS, generate_keys
from config.sources import PREFIX
from scripts.processes import ROOT
from tests.support import poll, wait_in_process

pytestmark = pytest.mark.integration

SERVING = (("run",), ("run", "--workers", "2"), ("console",))
# A start needs more than that on a loaded machine; what is measured is that the end does not wait for the start.
PROMPT_S = 8
IN_NAMESPACE = pytest.mark.skipif(os.geteuid() != 0, reason="a namespace of processes needs root")


@pytest.fixture(scope="module")
def silent_port() -> Iterator[int]:
    """A port whose connections are accepted by the kernel and never answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        yield server.getsockname()[1]


@dataclass
class Starter:
    """Starts broker commands that hang while they connect."""

    folder: Path
    port: int

    def environment(self) -> dict[str, str]:
        keys = {f"{PREFIX}KEYS": json.dumps(generate_keys())}
        return {
            **os.environ,
            **keys,
            "PYTHONPATH": str(ROOT),
            f"{PREFIX}RABBITMQ__URL": f"amqp://a:b@127.0.0.1:{self.port}/",
            f"{PREFIX}LEDGER__DSN": f"postgresql://a:b@127.0.0.1:{self.port}/x",
            f"{PREFIX}DIRECTORY__FILE": str(DEFAULTS.with_name("directory.toml")),
            f"{PREFIX}HEALTH__PORT": "0",
            f"{PREFIX}LOG__FORMAT": "json",
            "BIRKELUND_WEBHOOK_SECRET": "whsec_" + "A" * 32,
            "NORDLYS_TOKEN": "token",
        }

    def start(self, *words: str, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(
                [*before, sys.executable, "-m", "broker", *words],
                env=self.environment(),
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


@pytest.fixture
def starter(tmp_path: Path, silent_port: int) -> Starter:
    return Starter(tmp_path, silent_port)


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """At the end of the block neither the process nor a descendant of it lives."""
    try:
        yield process
    finally:
        for each in descendants(process.pid):
            with suppress(psutil.Error):
                each.kill()
        process.kill()
        process.wait()


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def image_start() -> tuple[str, ...]:
    """The words of the image's entry point before the command itself."""
    [line] = [
        text for text in (ROOT / "Dockerfile").read_text().splitlines() if text.startswith("ENTRYPOINT")
    ]
    words = ast.literal_eval(line.removeprefix("ENTRYPOINT").strip())
    assert words[-1] == "jobnet-broker"
    return tuple(words[:-1])


@IN_NAMESPACE
@pytest.mark.parametrize("after", [0.05, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("words", SERVING, ids=" ".join)
async def test_sigterm_during_the_start_ends_process_one_of_a_container(
    starter: Starter, words: tuple[str, ...], after: float
) -> None:
    assert shutil.which("unshare")
    with ended(starter.start(*words, before=("unshare", "--pid", "--fork", *image_start()))) as outer:
        [inner] = await poll(lambda: descendants(outer.pid)[:1], what="the first process of the namespace")
        await poll(lambda: inner.name() != "unshare", what="its program")
        time.sleep(after)  # noqa: ASYNC251  nothing else runs here
        inner.send_signal(signal.SIGTERM)
        assert await wait_in_process(outer, timeout=PROMPT_S) == 0, starter.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("words", SERVING, ids=" ".join)
async def test_a_process_that_is_told_to_stop_while_it_connects_ends_with_zero(
    starter: Starter, words: tuple[str, ...], number: signal.Signals
) -> None:
    with ended(starter.start(*words)) as process:
        await poll(lambda: catches(process.pid, signal.SIGTERM), timeout=30, what="a handler")
        process.send_signal(number)
        assert await wait_in_process(process, timeout=PROMPT_S) == 0, starter.log()
    assert "Traceback" not in starter.log()


async def test_sighup_during_the_start_does_not_end_a_worker(starter: Starter) -> None:
    with ended(starter.start("run")) as process:
        await poll(lambda: catches(process.pid, signal.SIGHUP), timeout=30, what="a handler")
        for _ in range(10):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.1)  # noqa: ASYNC251  nothing else runs here
        assert process.poll() is None, starter.log()


async def test_workers_end_when_their_parent_is_killed(starter: Starter) -> None:
    with ended(starter.start("run", "--workers", "2")) as parent:
        workers = await poll(
            lambda: len(found := descendants(parent.pid)) == 2 and found, timeout=30, what="two workers"
        )
        parent.kill()
        parent.wait()
        try:
            await poll(lambda: not any(alive(each) for each in workers), what="the workers to end")
        finally:
            for each in workers:
                with suppress(psutil.Error):
                    each.kill()


@pytest.mark.parametrize("later", [0.0, 0.3, 1.1, 1.4, 2.0])
async def test_stopped_while_a_killed_worker_is_started_again_the_parent_ends_with_zero(
    starter: Starter, later: float
) -> None:
    with ended(starter.start("run", "--workers", "2")) as parent:
        workers = await poll(
            lambda: len(found := descendants(parent.pid)) == 2 and found, timeout=30, what="two workers"
        )
        await poll(lambda: all(catches(each.pid, signal.SIGTERM) for each in workers), what="their handlers")
        workers[0].kill()
        time.sleep(later)  # noqa: ASYNC251  nothing else runs here
        parent.terminate()
        assert await wait_in_process(parent, timeout=20) == 0, starter.log()


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for this signal (Linux: SigCgt)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) & 1 << (number - 1))
    return False


def test_the_handlers_stand_before_anything_large_is_imported() -> None:
    code = (
        "import sys, signal; sys.argv = ['jobnet-broker', '--config', 'console', 'run']\n"
        "import broker.__main__ as entry\n"
        "entry.take_signals(sys.argv)\n"
        "assert callable(signal.getsignal(signal.SIGTERM)), 'no handler'\n"
        "print(sorted({'click', 'asyncio', 'pydantic', 'config'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
