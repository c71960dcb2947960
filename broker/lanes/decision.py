"""Types of the retry policy: its input, its verdicts, its decision. Data only; the rules are in retry_policy.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from broker.errors import CallFacts
from broker.lanes.events import Event


@dataclass(frozen=True, slots=True)
class RetryState:
    """Counters of one report.

    `unanswered`: the current x-requestId was sent, and got no answer or a 2xx that is not the contract's.
    """

    retries: int = 0
    crashes: int = 0
    bugs: int = 0
    unanswered: bool = False


@dataclass(frozen=True, slots=True)
class Delivered:
    """The supplier has the report. `duplicate`: it answered that it had received it before."""

    label: ClassVar[str] = "delivered"
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """Due again in `pause_s` seconds at the earliest. `counted`: it uses up one delay of the list."""

    label: ClassVar[str] = "later"
    pause_s: float
    counted: bool
    cause: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The report becomes a dead letter."""

    label: ClassVar[str] = "dead"
    cause: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Kept, due at once, while the lane is parked because the set-up is wrong."""

    label: ClassVar[str] = "kept"
    cause: str


Action = Delivered | Retry | DeadLetter | Hold
"""`label` is its word in the attempts table, in metrics and in logs; those words are older than the class names."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about one attempt: verdict, counters after it, event for the lane, facts of the call.

    `cause_class`: whose fault it is: message, moment, setup or ours; None if delivered.
    """

    verdict: Action
    tries: RetryState
    lane_event: Event | None = None
    call_facts: CallFacts | None = None
    cause_class: str | None = None

    @property
    def unanswered(self) -> bool:
        """Whether the next attempt keeps its x-requestId (docs/contract.md#request-ids)."""
        return self.tries.unanswered
