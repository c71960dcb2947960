"""A breaker for one external system: a state machine that is told the time.

Closed it counts failures in a row; open it lets nothing through; then exactly one call probes. It knows
nothing of calls, waiting or errors, and it never wakes anybody.
"""

from __future__ import annotations

from enum import Enum


class CallHealth(Enum):
    """What a call taught about the system's health."""

    ANSWERED = "it works"
    FAILED = "it does not"
    NEITHER = "nothing was learnt"


class Admission(Enum):
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

    def admit(self, now: float) -> Admission | None:
        """Lets one call through, as a probe if the breaker was open; None: turned away."""
        if self.refuses(now):
            return None
        if self._open_until is None:
            return Admission.NORMAL
        self._probing = True
        return Admission.PROBE

    def record(self, as_: Admission, result: CallHealth, now: float) -> None:
        """Learns from a call that was let through. While it is open, only the probe counts."""
        if as_ is Admission.PROBE:
            self._probing = False
            if result is CallHealth.ANSWERED:
                self._open_until, self._failed = None, 0
            elif result is CallHealth.FAILED:
                self._open_until = now + self._open_seconds
        elif self._open_until is None:
            self._count(result, now)

    def _count(self, result: CallHealth, now: float) -> None:
        if result is CallHealth.ANSWERED:
            self._failed = 0
        elif result is CallHealth.FAILED:
            self._failed += 1
            if self._failed >= self._limit:
                self._open_until = now + self._open_seconds
