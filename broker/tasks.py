"""Ending tasks for certain. Before Python 3.12 `asyncio.wait_for` may swallow a cancellation that comes together with
its result; a task that was cancelled once and goes on would be waited for without an end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

AGAIN_S = 0.5
"""How long a cancelled task may take before it is cancelled once more."""


async def cancel_and_wait(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel, again and again, until every one is done. Their errors are theirs: nothing is raised."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)
