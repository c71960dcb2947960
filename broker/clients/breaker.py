"""A breaker for one external system: a state machine that is told the time.

Closed it counts failures in a row; open it lets nothing through; then exactly one call probes. It knows
nothing of calls, waiting or errors, and it never wakes anybody.
"""

from __future__ import annotations

from enum import Enum


class Result(Enum):
    """What a call taught about the system's health."""

    ANSWERED = "it works"
    FAILED = "it does not"
    NEITHER = "nothing was learnt"


class Pass(Enum):
    """What a call was let through as."""

    NORMAL = "normal"
    PROBE = "probe"


class Breaker:
    """Opens after `failures` failures in a row, for `open_seconds`; times are seconds of any steady clock."""

    def __init__(self, failures: int, open_seconds: float) -> None:
        self._limit = failures
        self._open_seconds = open_seconds
        self._failed = 0
        self._open_until: float | None = None
        self._probing = False

    def refuses(self, now: float) -> bool:
        """Whether a call that came now would be turned away."""
        return self._open_until is not None and (now < self._open_until or self._probing)

    def admit(self, now: float) -> Pass | None:
        """Lets one call through, as a probe if the breaker was open; None: turned away."""
        if self.refuses(now):
            return None
        if self._open_until is None:
            return Pass.NORMAL
        self._probing = True
        return Pass.PROBE

    def record(self, as_: Pass, result: Result, now: float) -> None:
        """Learns from a call that was let through. While it is open, only the probe counts."""
        if as_ is Pass.PROBE:
            self._probing = False
            if result is Result.ANSWERED:
                self._open_until, self._failed = None, 0
            elif result is Result.FAILED:
                self._open_until = now + self._open_seconds
        elif self._open_until is None:
            self._count(result, now)

    def _count(self, result: Result, now: float) -> None:
        if result is Result.ANSWERED:
            self._failed = 0
        elif result is Result.FAILED:
            self._failed += 1
            if self._failed >= self._limit:
                self._open_until = now + self._open_seconds
