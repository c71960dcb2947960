"""SIGHUPs that follow each other closely: one reload at a time, and the newest directory is in force at the end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from broker import reload
from broker.reload import Reloads


class Directories:
    """The directory file, the queues of RabbitMQ and the clients: versions, each with its own time to look at queues."""

    def __init__(self, *pauses: float) -> None:
        self.pauses = pauses
        self.newest = 0
        self.at_once = 0
        self.most_at_once = 0
        self.replaced: list[int] = []
        self.in_force: list[int] = []
        self.directory = self._version(0)

    def _version(self, number: int) -> Any:
        return SimpleNamespace(number=number, suppliers=number, jobcenters={})

    def load(self, _: object) -> Any:
        return self._version(self.newest)

    async def missing(self, _: object, number: int) -> list[str]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.pauses[min(number, len(self.pauses) - 1)])
        self.at_once -= 1
        return []

    async def replace(self, directory: Any) -> list[str]:
        self.replaced.append(directory.number)
        return []

    async def open_systems(self) -> list[tuple[str, str]]:
        return []


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> Directories:
    # The first look is slow and the later ones are quick: side by side, the first directory would win.
    made = Directories(0, 0.3, 0.01)
    monkeypatch.setattr(reload, "load_directory", made.load)
    monkeypatch.setattr(reload, "missing", made.missing)
    monkeypatch.setattr(reload, "problems", lambda *_: [])
    monkeypatch.setattr(reload, "setup_problems", lambda *_: [])
    monkeypatch.setattr(reload, "changed_systems", lambda *_: set())
    return made


async def test_the_newest_directory_is_in_force_after_sighups_twenty_milliseconds_apart(
    patched: Directories,
) -> None:
    settings = SimpleNamespace(directory=SimpleNamespace(file="directory.toml"))
    world = cast("Any", patched)
    reloads = Reloads(
        cast("Any", settings), world, world, lambda new: patched.in_force.append(cast("Any", new).number)
    )
    wanted = asyncio.Event()
    running = asyncio.create_task(reloads.run(wanted))
    for number in range(1, 6):
        patched.newest = number
        wanted.set()  # what the handler of SIGHUP does
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.6)
    running.cancel()
    assert patched.most_at_once == 1
    assert patched.in_force[-1] == patched.replaced[-1] == 5
    assert len(patched.replaced) == 2, "each further SIGHUP during a reload is one more reload altogether"


async def test_a_reload_that_hangs_does_not_hold_up_the_next(
    patched: Directories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "RELOAD_S", 0.1)
    patched.pauses = (0, 60, 0)
    world = cast("Any", patched)
    settings = SimpleNamespace(directory=SimpleNamespace(file="directory.toml"))
    reloads = Reloads(
        cast("Any", settings), world, world, lambda new: patched.in_force.append(cast("Any", new).number)
    )
    wanted = asyncio.Event()
    running = asyncio.create_task(reloads.run(wanted))
    for number in (1, 2):
        patched.newest = number
        wanted.set()
        await asyncio.sleep(0.3)
    running.cancel()
    assert patched.in_force == [2]
