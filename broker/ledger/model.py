"""The words of the ledger: what is asked of it, what it answers, and what can be looked up.

Plain frozen data without I/O. Everything personal in here is in the clear and lives in memory only; it is
sealed before it is written down. Reprs leave personal fields out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from broker.errors import BrokerError
from schemas.codes import Status
from schemas.personal import Cpr

EVENT_LEASE = timedelta(seconds=60)
"""An event that was taken and not reported as sent is due again after this: never lost."""


class State(StrEnum):
    """Where a request stands. Only `running` and `uncertain` hold their citizen's turn (DESIGN 3, rule 9)."""

    RUNNING = "running"
    SETTLED = "settled"
    UNCERTAIN = "uncertain"
    UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """One request that wants to be claimed; `business` and `message` are bytes in the clear."""

    request_id: UUID
    type: str
    business: bytes = field(repr=False)
    cpr: Cpr
    jobcenter_code: str
    planner: str
    booking_system: str
    supplier: str
    deadline_at: datetime
    message: bytes = field(repr=False)
    traceparent: str | None = None
    turn: bool = True


@dataclass(frozen=True)
class Claim:
    """The right to settle one request, as long as nobody took it over: `owner` and `epoch` are compared.

    Hold on to the object while you work: the ledger keeps a weak reference, and a claim that this process
    dropped without settling counts as left by a dead owner. `message` is opened for verification and sweep
    only. `verify_tries` counts the finished look-ups that found nothing out.
    """

    request_id: UUID
    epoch: int
    owner: UUID
    taken_over: bool
    type: str
    jobcenter_code: str
    planner: str
    booking_system: str
    supplier: str
    deadline_at: datetime
    dead_owners: int = 0
    traceparent: str | None = None
    last_sent_at: datetime | None = None
    uncertain_since: datetime | None = None
    verify_tries: int = 0
    message: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NewReport:
    """A report that is made in the commit that settles its request. `content` is `Report.to_json()`, in the clear.

    `merge`: what makes automatic ones equal (DESIGN 6), None for a citizen's words. `joins`: the failed request
    that a citizen names. `supplier` is "" while nobody is known for the jobcenter.
    """

    report_id: UUID
    kind: str
    request_id: UUID
    supplier: str
    jobcenter_code: str
    type: str
    error_code: int
    occurred_at: datetime
    content: bytes = field(repr=False)
    cpr: Cpr = field(repr=False)
    merge: bytes | None = field(default=None, repr=False)
    traceparent: str | None = None
    joins: UUID | None = None


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """How a request ends: what is stored, sealed, as its answer. `report` goes with it, in the same commit (DESIGN 6).

    `last_sent_at` belongs to an uncertain ending: absence proves nothing until some time after it.
    """

    status: Status
    answer: bytes = field(repr=False)
    reason: str | None = None
    error_code: int | None = None
    last_sent_at: datetime | None = None
    report: NewReport | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What is known of a request that ended; `corrected`: a verification replaced an uncertain answer."""

    type: str
    jobcenter_code: str
    planner: str
    booking_system: str
    supplier: str
    state: State
    corrected: bool
    settled_at: datetime


@dataclass(frozen=True, slots=True)
class Claimed:
    """Nobody knew this request; it and the citizen's turn are ours. Only a new claim may begin or expire."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Its owner died. What it sent is unknown: look it up, never send it again (DESIGN 5)."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Settled:
    """It ended before, or just now; `ending.answer` is what its asker gets."""

    ending: StoredAnswer
    facts: RequestFacts


@dataclass(frozen=True, slots=True)
class ClaimedElsewhere:
    """A living owner has it, perhaps this process: ask again a little later."""


@dataclass(frozen=True, slots=True)
class CitizenBusy:
    """Another request holds the turn; nothing was claimed. `uncertain`: verify that one first (rule 9)."""

    request_id: UUID
    uncertain: bool


@dataclass(frozen=True, slots=True)
class Conflict:
    """The same requestId came before with other business fields (rule 8)."""


ClaimOutcome = Claimed | TakenOver | Settled | ClaimedElsewhere | CitizenBusy | Conflict


@dataclass(frozen=True, slots=True)
class DueEvent:
    """An outcome event that no arrival will publish: a verification ended, or gave up (`unverified`)."""

    request_id: UUID
    type: str
    outcome: str
    reason: str | None
    error_code: int | None
    jobcenter_code: str
    booking_system: str
    supplier: str
    corrects_uncertain: bool
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Story:
    """Everything the ledger knows of a request without opening what is sealed."""

    request_id: UUID
    type: str
    state: State
    status: str | None
    reason: str | None
    error_code: int | None
    jobcenter_code: str
    planner: str
    booking_system: str
    supplier: str
    owner: UUID | None
    epoch: int
    dead_owners: int
    corrected: bool
    verify_tries: int
    created_at: datetime
    deadline_at: datetime
    last_sent_at: datetime | None
    uncertain_since: datetime | None
    verify_due_at: datetime | None
    settled_at: datetime | None
    event_due_at: datetime | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One broker process by the clock of PostgreSQL. `alive`: it could not be judged dead now."""

    id: UUID
    pid: int
    started_at: datetime
    heartbeat_at: datetime
    unbroken_since: datetime
    ready: bool
    stopped_at: datetime | None
    alive: bool
    host: str | None = None
    expected: int | None = None
    consuming: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """What a process sees of itself: consumers it should have and has, and what keeps it from carrying arrivals."""

    expected: int
    consuming: int
    problem: str | None


class RowRefused(BrokerError):
    """PostgreSQL refused this row and no other one: `sqlstate` says why. Never holds a value of the row."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"PostgreSQL refused this row (SQLSTATE {sqlstate})")
        self.sqlstate = sqlstate

    @property
    def passing(self) -> bool:
        """Whether the same row may pass a moment later: deadlock, serialization, a lock held too long."""
        return self.sqlstate[:2] == "40" or self.sqlstate == "55P03"


class LedgerMisfit(BrokerError):
    """This database is not one that this broker can work with; the sentence says what to do."""
