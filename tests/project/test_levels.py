"""A unit test that needs a server or a process fails; test modules import from support modules only."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.levels import LEVELS, LONGEST_FILES, TESTS, no_servers


def connect() -> None:
    with socket.socket() as client:
        client.connect(("127.0.0.1", 9))


def listen() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))


def start_process() -> None:
    subprocess.run([sys.executable, "--version"], check=True)


def connect_asyncio() -> None:
    asyncio.run(_open_connection())


def connect_uvloop() -> None:
    uvloop.run(_open_connection())


async def _open_connection() -> Any:
    await asyncio.open_connection("127.0.0.1", 9)


@pytest.mark.integration
@pytest.mark.parametrize("action", [connect, listen, start_process, connect_asyncio, connect_uvloop])
def test_a_unit_test_that_uses_a_server_or_process_fails(action: Callable[[], None]) -> None:
    error = pytest.raises(AssertionError, match=r"pytest\.mark\.integration")
    with error, no_servers(), suppress(PermissionError):  # the tested code may hide it
        action()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_unit_test_may_run_an_event_loop(run: Callable[[Any], None]) -> None:
    run(asyncio.sleep(0))


def test_each_test_has_one_level(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        assert len({mark.name for mark in item.iter_markers()} & set(LEVELS)) == 1, item.nodeid


def test_the_longest_files_exist() -> None:
    assert [name for name in LONGEST_FILES if not (TESTS / name).is_file()] == []


IMPORT = re.compile(r"^\s*from (tests[\w.]*) import \(?([^)]*)|^\s*import (tests[\w.]*)", re.M)


def imported_by(path: Path) -> set[str]:
    """The modules and names of this folder that a file imports, also in a function or a text of a program."""
    found: set[str] = set()
    for source, names, module in IMPORT.findall(path.read_text()):
        found |= {source, module, *(f"{source}.{name}" for name in re.findall(r"\w+", names))}
    return found


def test_no_module_imports_from_a_test_module() -> None:
    paths = sorted(TESTS.rglob("*.py"))
    modules = {path: ".".join(path.relative_to(TESTS.parent).with_suffix("").parts) for path in paths}
    test_modules = {name for path, name in modules.items() if path.name.startswith("test_")}
    assert len(test_modules) > 100
    found = {modules[path]: imported_by(path) & test_modules for path in paths}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
