"""What can happen to a supplier's lane: data only. What follows from it is in `lanes.py`."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class DestinationAnswered:
    """An attempt was answered as the contract says, be it with a "no": the destination works."""


@dataclass(frozen=True, slots=True)
class DestinationFailed:
    """An attempt met a destination that does not work; `what` is a word of ours (`Seen.what`)."""

    what: str
    probe: bool = False


@dataclass(frozen=True, slots=True)
class SetupWrong:
    """An attempt met a wrong address, credential or certificate."""

    what: str
    probe: bool = False


@dataclass(frozen=True, slots=True)
class WaitRequested:
    """The supplier asked for a pause of so many seconds; None: it did not say how long (a bare 429)."""

    seconds: float | None
    what: str


@dataclass(frozen=True, slots=True)
class Paused:
    """A person stops the lane."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """A person lets a paused lane go on, or a parked one probe at once."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class TimeCame:
    """The parked time is over; this report goes as the probe."""

    probe: UUID


@dataclass(frozen=True, slots=True)
class ProbeLost:
    """The probe ended without an answer and without a failure of the destination: crash, bug, taken back."""


Event = (
    DestinationAnswered
    | DestinationFailed
    | SetupWrong
    | WaitRequested
    | Paused
    | Resumed
    | TimeCame
    | ProbeLost
)
