"""Retries with tenacity after a first try that was made without it: tenacity costs more than most of our calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying

T = TypeVar("T")


async def retry_from(first: Exception, call: Callable[[], Awaitable[T]], policy: AsyncRetrying) -> T:
    """Repeat `call` under `policy`, which sees `first`, the failure of the try before, as its attempt number 1.

    Raises what `policy` raises: `first` itself if it allows no further try.
    """
    failure: Exception | None = first

    async def attempt() -> T:
        nonlocal failure
        if failure is not None:
            # tenacity starts counting here.
            error, failure = failure, None
            raise error
        return await call()

    return await policy(attempt)
