"""A circuit breaker for one external system: a state machine that is told the time.

Closed, it counts consecutive failures. Open, it rejects every call for a time. Half-open, it admits one call as a
probe. It knows nothing of calls, waiting or errors, and it wakes no waiting call.
"""

from __future__ import annotations

from enum import Enum


class CallHealth(Enum):
    """What a call said about the system's health."""

    ANSWERED = "the system works"
    FAILED = "the system does not work"
    NEITHER = "the call says nothing about the system"


class Admission(Enum):
    """As what a call was admitted."""

    NORMAL = "normal"
    PROBE = "probe"


class Breaker:
    """Opens after `failures` consecutive failures, for `open_seconds`. Times are seconds of any steady clock."""

    def __init__(self, failures: int, open_seconds: float) -> None:
        self._failures_to_open = failures
        self._open_seconds = open_seconds
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    def refuses(self, now: float) -> bool:
        """Whether a call at this time would be rejected."""
        return self._open_until is not None and (now < self._open_until or self._probing)

    def admit(self, now: float) -> Admission | None:
        """Admit one call, as a probe if the breaker was open; None: rejected."""
        if self.refuses(now):
            return None
        if self._open_until is None:
            return Admission.NORMAL
        self._probing = True
        return Admission.PROBE

    def record(self, admission: Admission, health: CallHealth, now: float) -> None:
        """Record the result of an admitted call. While the breaker is open only the probe counts."""
        if admission is Admission.PROBE:
            self._probing = False
            if health is CallHealth.ANSWERED:
                self._open_until, self._failures = None, 0
            elif health is CallHealth.FAILED:
                self._open_until = now + self._open_seconds
        elif self._open_until is None:
            self._count(health, now)

    def _count(self, health: CallHealth, now: float) -> None:
        if health is CallHealth.ANSWERED:
            self._failures = 0
        elif health is CallHealth.FAILED:
            self._failures += 1
            if self._failures >= self._failures_to_open:
                self._open_until = now + self._open_seconds
