"""What the delivery policy weighs and what it can say: data only. The judgement itself is in `delivery_policy.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from broker.errors import CallFacts
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
class RetryState:
    """What a report has been through. `unanswered`: the current x-requestId was sent, nobody answered."""

    retries: int = 0
    crashes: int = 0
    bugs: int = 0
    unanswered: bool = False


@dataclass(frozen=True, slots=True)
class Delivered:
    """The supplier has it. `duplicate`: it said that it had it before."""

    label: ClassVar[str] = "delivered"
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """Due again in `pause_s` seconds at the earliest. `counted`: one delay of the list is used up."""

    label: ClassVar[str] = "later"
    pause_s: float
    counted: bool
    cause: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter."""

    label: ClassVar[str] = "dead"
    cause: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Waits, due at once, until a person has put the set-up right: the lane is parked meanwhile."""

    label: ClassVar[str] = "kept"
    cause: str


Action = Delivered | Retry | DeadLetter | Hold
"""`label` is its word in the attempts table, in metrics and in logs; those words are older than the class names."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One attempt, judged: the verdict, the counters after it, what the lane learns, what was seen.

    `cause_class` is one of message, moment, setup, ours (craft.md: whose fault is it?), None if delivered.
    """

    verdict: Action
    tries: RetryState
    lane_event: Event | None = None
    call_facts: CallFacts | None = None
    cause_class: str | None = None

    @property
    def unanswered(self) -> bool:
        """Whether the next try keeps its x-requestId (DESIGN 4)."""
        return self.tries.unanswered
