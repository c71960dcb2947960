"""Events of a supplier's lane: data only. The transitions are in lane.py."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class DestinationAnswered:
    """An attempt got an answer of the contract, also a refusal: the destination works."""


@dataclass(frozen=True, slots=True)
class DestinationFailed:
    """The destination does not work; `what` is `CallFacts.what`. `probe`: the attempt was the lane's probe.

    `otherwise`: it answered with a 2xx that is not the contract's, so a person must look.
    """

    what: str
    probe: bool = False
    otherwise: bool = False


@dataclass(frozen=True, slots=True)
class SetupWrong:
    """Address, credential or certificate is wrong, so a person must act."""

    what: str
    probe: bool = False


@dataclass(frozen=True, slots=True)
class WaitRequested:
    """The supplier asked for a pause of `seconds`; None: it named no length (a 429 without Retry-After).

    math.inf: its Retry-After cannot be read.
    """

    seconds: float | None
    what: str


@dataclass(frozen=True, slots=True)
class Paused:
    """An operator paused the lane."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """An operator resumed a paused lane, or made a parked lane probe at once."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class TimeCame:
    """The parking time is over; the report `probe` goes as the probe."""

    probe: UUID


@dataclass(frozen=True, slots=True)
class ProbeLost:
    """The probe ended without proof either way: crash, bug, or its hand-over was reverted."""


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
