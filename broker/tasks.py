"""Cancelling asyncio tasks reliably; stopping a server by signals, also while it starts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from broker.errors import BrokerError
from broker.signals import STOPS, end_start_within

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


class StopSignals:
    """SIGTERM and SIGINT of a server in an event loop: a start is cancelled, a running server is told to stop."""

    def __init__(self) -> None:
        self._told = asyncio.Event()
        self._starting: asyncio.Task[object] | None = None
        self._cut = False

    @contextmanager
    def during_start(self) -> Iterator[None]:
        """For the block that starts, serves and stops; it ends early without an error if the start was cancelled.

        Installs the handlers: nothing should be opened before it.
        """
        self._starting = asyncio.current_task()
        for number in STOPS:
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        try:
            yield
        except (asyncio.CancelledError, BrokerError, OSError):
            # A start that was cut may fail in other words, for example those of a connection.
            if not self._cut:
                raise

    def tell(self) -> None:
        """Stop in good order, when the start is over."""
        self._told.set()

    def _signalled(self) -> None:
        self.tell()
        if self._starting is not None and not self._cut:
            self._cut = True
            end_start_within()
            self._starting.cancel()

    async def started_and_told(self) -> None:
        """The start is over. Returns when the server is told to stop."""
        self._starting = None
        await self._told.wait()
