"""What the delivery policy weighs and what it can say: data only. The judgement itself is in `delivery_policy.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.errors import Seen
from broker.lanes.lane import Event


class DeliveryRules(Protocol):
    """The numbers that the policy needs; the settings' section `reports` has them."""

    @property
    def retry_delays_seconds(self) -> Sequence[float]:
        """The pause after each counted failure; when it is used up, the report is dead."""

    @property
    def retry_after_most_seconds(self) -> float:
        """A longer Retry-After counts as this one."""

    @property
    def bug_tries(self) -> int:
        """So many bugs of ours make a report dead."""

    @property
    def crashes_most(self) -> int:
        """So many processes that died at it make a report dead."""


@dataclass(frozen=True, slots=True)
class Tries:
    """What a report has been through. `unanswered`: the current x-requestId was sent, nobody answered."""

    retries: int = 0
    crashes: int = 0
    bugs: int = 0
    unanswered: bool = False


@dataclass(frozen=True, slots=True)
class Delivered:
    """The supplier has it. `duplicate`: it said that it had it before."""

    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Later:
    """Due again in `pause_s` seconds at the earliest. `counted`: one delay of the list is used up."""

    pause_s: float
    counted: bool
    cause: str


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter."""

    cause: str


@dataclass(frozen=True, slots=True)
class Kept:
    """Waits, due at once, until a person has put the set-up right: the lane is parked meanwhile."""

    cause: str


Verdict = Delivered | Later | Dead | Kept


@dataclass(frozen=True, slots=True)
class Judgement:
    """One attempt, judged: the verdict, the counters after it, what the lane learns, what was seen.

    `cause_class` is one of message, moment, setup, ours (craft.md: whose fault is it?), None if delivered.
    """

    verdict: Verdict
    tries: Tries
    lane_event: Event | None = None
    seen: Seen | None = None
    cause_class: str | None = None

    @property
    def unanswered(self) -> bool:
        """Whether the next try keeps its x-requestId (DESIGN 4)."""
        return self.tries.unanswered
