"""Test levels: `unit` (neither server nor process), `integration` (real servers, processes, sockets), `browser`.

The level of a test follows from its folder and its fixtures; a test that starts a server or a process in its own body
says `@pytest.mark.integration`. `no_servers` makes a unit test fail that has the wrong level.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

TESTS = Path(__file__).parent
UNIT, INTEGRATION, BROWSER = "unit", "integration", "browser"
LEVELS = (UNIT, INTEGRATION, BROWSER)

# Every test of these folders needs servers.
FOLDERS = {"functional": INTEGRATION, "browser": BROWSER}
# Fixtures that start a server or a process; a fixture that uses one of them needs no line here.
SERVER_FIXTURES = frozenset(
    {"run_folder", "day", "rabbit", "postgres", "own_rabbit", "own_postgres", "sandbox", "http"}
)

# The files that take longest, in this order: a run starts with them, so that none runs alone at its end.
LONGEST_FILES = (
    "functional/test_server_faults.py",
    "functional/test_process_faults.py",
    "functional/test_tracing.py",
    "sandbox/test_play.py",
    "functional/test_report_faults.py",
    "browser/test_console_pages.py",
    "ledger/test_report_model.py",
    "functional/test_dead_letters.py",
    "functional/test_figures.py",
    "functional/test_commands.py",
    "functional/test_watched.py",
    "monitoring/test_dashboard.py",
    "monitoring/test_rules.py",
    "rabbitmq/test_outages.py",
    "browser/test_jobnet_pages.py",
    "functional/test_reports.py",
    "functional/test_crashes.py",
    "scripts/test_servers.py",
    "functional/test_privacy.py",
    "faults/test_short.py",
    "functional/test_bookings.py",
    "ledger/test_upgrade.py",
    "console/test_large.py",
)

# Audit events (Python's table of audit events) of a new process.
PROCESS_EVENTS = frozenset(
    {"subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec"}
)
SOCKET_EVENTS = frozenset({"socket.connect", "socket.bind"})


def level_of(item: pytest.Item) -> str:
    """The level that a test says of itself, else that of its folder, else that of its fixtures."""
    for level in LEVELS:
        if item.get_closest_marker(level):
            return level
    folder = item.path.relative_to(TESTS).parts[0]
    if folder in FOLDERS:
        return FOLDERS[folder]
    fixtures = SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ()))
    return INTEGRATION if fixtures else UNIT


def length_rank(item: pytest.Item) -> int:
    """The place of a test's file in `LONGEST_FILES`, behind all of them for any other file."""
    name = item.path.relative_to(TESTS).as_posix()
    return LONGEST_FILES.index(name) if name in LONGEST_FILES else len(LONGEST_FILES)


class _Guard:
    """Python calls it at each audit event; it cannot be removed again, so it has a switch."""

    def __init__(self) -> None:
        self.forbidden = False
        self.installed = False
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in PROCESS_EVENTS:
            self.refuse(event, arguments)
        elif event in SOCKET_EVENTS and arguments[0].family != socket.AF_NETLINK:
            self.refuse(event, arguments[1:])

    def refuse(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.forbidden:
            self.seen.append(f"{event}{arguments}")
            raise PermissionError(f"a unit test starts no process and opens no connection: {self.seen[-1]}")


_guard = _Guard()

# uvloop connects and starts processes in C, where Python raises no audit event. Connections to a given socket are the
# tests' own pairs.
UVLOOP_METHODS = (
    "create_connection",
    "create_server",
    "create_unix_connection",
    "subprocess_exec",
    "subprocess_shell",
)


def _guarded(name: str) -> Any:
    original = getattr(uvloop.Loop, name)

    def method(loop: uvloop.Loop, *arguments: Any, **options: Any) -> Any:
        if options.get("sock") is None:
            _guard.refuse(f"uvloop.{name}", arguments)
        return original(loop, *arguments, **options)

    return method


def _install() -> None:
    sys.addaudithook(_guard)
    for name in UVLOOP_METHODS:
        setattr(uvloop.Loop, name, _guarded(name))
    _guard.installed = True


@contextmanager
def no_servers() -> Iterator[None]:
    """Fail if anything inside starts a process, connects or listens, also if the tested code hides the error."""
    if not _guard.installed:
        _install()
    _guard.seen.clear()
    _guard.forbidden = True
    try:
        yield
    finally:
        _guard.forbidden = False
    assert not _guard.seen, f"a unit test needs @pytest.mark.integration for this: {', '.join(_guard.seen)}"
