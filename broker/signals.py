"""Signals while a process starts, and the signals of a worker's parent. Imports nothing but small standard modules.

The kernel drops a signal to PID 1 that has no handler and is not blocked, and without a handler SIGHUP ends any other
process. `take_signals` therefore runs before the other imports; an event loop's handlers replace its handlers later.
Whoever starts the process (the image's entry point, the parent of workers) blocks the signals until then.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGTERM, signal.SIGINT)
SIGNALS = frozenset({*STOPS, signal.SIGHUP})
EXIT_TOLD_TO_STOP = 0
EXIT_TERMINATED = 128 + signal.SIGTERM
OPTIONS_WITH_VALUE = frozenset({"--config", "--directory"})
END_OF_START_S = 5.0
"""How long a start that was told to stop may take to close what it has opened."""

PR_SET_PDEATHSIG = 1

_hangups: list[int] = []


def take_signals(argv: Sequence[str]) -> None:
    """Handle SIGTERM, SIGINT and SIGHUP from now on: they end a starting server, SIGHUP is remembered.

    Commands that are no servers keep Python's handlers, except for SIGTERM to PID 1.
    """
    serving, reloads = _serves(argv)
    if serving:
        for number in STOPS:
            signal.signal(number, _end)
    elif os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end_command)
    if reloads:
        signal.signal(signal.SIGHUP, _remember)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _serves(argv: Sequence[str]) -> tuple[bool, bool]:
    """Whether this command line runs a server, and whether SIGHUP makes that one reload."""
    words = iter(argv[1:])
    command = ""
    for word in words:
        if word in OPTIONS_WITH_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            command = word
            break
    rest = [word for word in words if not word.startswith("-")]
    return command == "run" or (command == "console" and not rest), command == "run"


def _end(_number: int, _frame: FrameType | None) -> None:
    # Nothing is open yet. An exception could be swallowed by the code in which the signal arrives.
    os._exit(EXIT_TOLD_TO_STOP)


def _end_command(_number: int, _frame: FrameType | None) -> None:
    os._exit(EXIT_TERMINATED)


def _remember(number: int, _frame: FrameType | None) -> None:
    _hangups.append(number)


def hangup_during_start() -> bool:
    """Whether SIGHUP came before the event loop's handlers: the directory may have been read before it."""
    return bool(_hangups)


def end_start_within(seconds: float = END_OF_START_S) -> None:
    """End the process after that time, however its start hangs: a thread of a name server or of a start cannot be cut."""
    timer = threading.Timer(seconds, os._exit, (EXIT_TOLD_TO_STOP,))
    timer.daemon = True
    timer.start()


@contextmanager
def held_for_child() -> Iterator[None]:
    """A child that is started in this block has the signals blocked, so none is lost before its own handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ending_with_parent() -> Callable[[], None]:
    """For the child of this process, before its program: it gets SIGTERM when its parent ends. Linux only."""
    parent = os.getpid()
    # Loaded here: a child of fork should do little.
    prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None

    def arrange() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(EXIT_TOLD_TO_STOP)

    return arrange
