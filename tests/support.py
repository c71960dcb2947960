"""Helpers for the tests of every part: waiting for a condition, with more patience on a loaded machine."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from scripts.processes import LOCAL, locked

POLL_S = 0.02
# The patience of a test is not stretched further than this, so that a hung test still ends.
LONGEST_STRETCH = 8.0


def slowness() -> float:
    """How many times slower than on an idle machine a process may run now: processes that want a CPU, per CPU."""
    return _slowness_at(int(time.monotonic() / 0.5))


@lru_cache(maxsize=1)
def _slowness_at(_half_second: int) -> float:
    """Read at most twice a second: many tasks ask for it."""
    averages = Path("/proc/loadavg").read_text().split()
    # The average of the last minute, or what runs at this moment when the load is new.
    wanting = max(float(averages[0]), float(averages[3].partition("/")[0]))
    return min(max(1.0, wanting / (os.cpu_count() or 1)), LONGEST_STRETCH)


class Patience:
    """So many seconds of waiting on an idle machine; on a loaded one, time counts less."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._spent = 0.0
        self._seen = time.monotonic()

    def is_over(self) -> bool:
        now = time.monotonic()
        self._spent += (now - self._seen) / slowness()
        self._seen = now
        return self._spent >= self.seconds


@contextmanager
def the_only_day() -> Iterator[None]:
    """`make run` has one place in a checkout, and one test at a time there."""
    with locked(LOCAL / "test-day.lock", "waiting for another test that runs the sample day"):
        yield


async def poll(
    condition: Callable[[], Any],
    *,
    timeout: float = 20.0,  # noqa: ASYNC109 - the point of this helper
    what: str,
) -> Any:
    """Call `condition` (plain or async) until it returns something true, and return that.

    `timeout` is in seconds of an idle machine, see `Patience`. Raises AssertionError with `what` was awaited and the
    last value.
    """
    patience = Patience(timeout)
    while True:
        result = condition()
        value = await result if inspect.isawaitable(result) else result
        if value:
            return value
        assert not patience.is_over(), f"after {timeout:.0f} s still waiting for {what}; last: {value!r}"
        await asyncio.sleep(POLL_S)


async def wait_in_process(process: Any, *, timeout: float = 20.0) -> int:  # noqa: ASYNC109 - as in `poll`
    """The exit code of a subprocess.Popen when it has ended."""
    await poll(lambda: process.poll() is not None, timeout=timeout, what=f"process {process.pid} to end")
    return int(process.returncode)
