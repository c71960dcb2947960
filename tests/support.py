"""What tests of every part share: waiting for a condition. Fixtures are in conftest.py."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from scripts.processes import LOCAL, locked

POLL_S = 0.02


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

    Raises AssertionError which says what was awaited, and what came last.
    """
    until = time.monotonic() + timeout
    while True:
        result = condition()
        value = await result if inspect.isawaitable(result) else result
        if value:
            return value
        assert time.monotonic() < until, f"after {timeout:.0f} s still waiting for {what}; last: {value!r}"
        await asyncio.sleep(POLL_S)
