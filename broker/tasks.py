"""Cancelling asyncio tasks reliably."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

AGAIN_S = 0.5
"""How long a cancelled task may take before it is cancelled again."""


async def cancel_and_wait(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel the tasks, repeatedly, until all of them are done. Their exceptions are not raised."""
    # Before Python 3.12 `asyncio.wait_for` may swallow a cancellation that arrives together with its result; the task
    # would go on, and a single `cancel` would wait for it for ever.
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)
