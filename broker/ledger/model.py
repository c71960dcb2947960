"""The ledger's types for requests: claims and their outcomes, endings, events, and rows that can be looked up.

Frozen data without I/O. Personal fields are in the clear, in memory only; they are sealed before they are stored.
Reprs leave them out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from broker.errors import BrokerError, LedgerAway
from schemas.codes import Status
from schemas.personal import Cpr

EVENT_LEASE = timedelta(seconds=60)
"""An event that was taken and not marked as sent is due again after this, so that none is lost."""


class State(StrEnum):
    """The state of a request (docs/states.md#request). Only `running` and `uncertain` hold the citizen's turn (R9)."""

    RUNNING = "running"
    SETTLED = "settled"
    UNCERTAIN = "uncertain"
    UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True)
class Transition:
    """A row of a transition table: a change of a column `state`. tests/ledger/test_transitions.py checks every row.

    `before`: None for an insert. `written_by`: the SQL statement that writes it, its module below broker.ledger.
    """

    before: str | None
    after: str
    reason: str
    written_by: str


REQUEST_TRANSITIONS = (
    Transition(None, State.RUNNING, "claimed, with the citizen's turn", "requests.entries.INSERT"),
    Transition(None, State.SETTLED, "recorded: it ended before it was begun", "requests.entries.INSERT"),
    Transition(State.RUNNING, State.SETTLED, "the outcome is known", "requests.settles.SETTLE"),
    Transition(
        State.RUNNING,
        State.UNCERTAIN,
        "a call's outcome is unknown, or the owner died",
        "requests.settles.SETTLE",
    ),
    Transition(State.UNCERTAIN, State.SETTLED, "a verification found the outcome", "requests.settles.SETTLE"),
    Transition(
        State.UNCERTAIN,
        State.UNVERIFIED,
        "verifications found nothing in time",
        "requests.verifications.GIVE_UP",
    ),
    Transition(
        State.UNVERIFIED,
        State.UNCERTAIN,
        "an operator wants it verified again",
        "dead_letters.letters.VERIFY",
    ),
)
"""Every change of a request's state. A takeover changes owner and epoch, not the state."""


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """One request to claim; `business` and `message` are bytes in the clear. `turn`: claim the citizen's turn too."""

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
    """The right to settle one request: a lease. `owner` and `epoch`, the fencing token, are compared at the settle.

    The process that made it holds it until its work ends. A claim that was let go without a settle is an orphan.
    `message` is opened for verification and sweep only. `dead_owners`: how many owners died with it. `verify_tries`:
    finished look-ups that found nothing out.
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
    """A report made in the transaction that settles its request. `content` is `Report.to_json()`, in the clear.

    `merge`: the fields in which merged automatic failures are equal; None for a citizen's report. `joins`: the failed
    request that a citizen names. `supplier` is "" while the directory knows none for the jobcenter.
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
    """How a request ends, with the answer to store. `report` is made in the same transaction.

    `last_sent_at` belongs to an uncertain ending: the absence of a booking proves nothing until some time after it.
    """

    status: Status
    answer: bytes = field(repr=False)
    reason: str | None = None
    error_code: int | None = None
    last_sent_at: datetime | None = None
    report: NewReport | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The columns in the clear of a request that ended. `corrected`: a verification replaced an uncertain answer."""

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
    """The request is new; this process owns it and the citizen's turn. Only a new claim may begin or expire."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Its owner died. Whether it called the booking system is unknown: look it up, never send it again.

    docs/architecture.md#unknown.
    """

    claim: Claim


@dataclass(frozen=True, slots=True)
class Settled:
    """The request has ended, earlier or just now; `ending.answer` is the answer for the frontend."""

    ending: StoredAnswer
    facts: RequestFacts


@dataclass(frozen=True, slots=True)
class ClaimedElsewhere:
    """A living process owns it, perhaps this one: claim again a little later."""


@dataclass(frozen=True, slots=True)
class CitizenBusy:
    """Another request, `request_id`, holds the turn; nothing was claimed. `uncertain`: verify that one first (R9)."""

    request_id: UUID
    uncertain: bool


@dataclass(frozen=True, slots=True)
class Conflict:
    """The same requestId came before with other business fields (R8)."""


ClaimOutcome = Claimed | TakenOver | Settled | ClaimedElsewhere | CitizenBusy | Conflict


@dataclass(frozen=True, slots=True)
class DueEvent:
    """An outcome event that no message in flight will publish: a verification ended or gave up (`unverified`)."""

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
    """A request's columns in the clear."""

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
    """One broker process, by PostgreSQL's clock. `alive`: not stopped, and its heartbeat is young."""

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
    """The consumers that a process should have and has, and why it handles no messages now, in words."""

    expected: int
    consuming: int
    problem: str | None


class RowRefused(BrokerError):
    """PostgreSQL refused this one row; `sqlstate` says why. Contains no value of the row."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"PostgreSQL refused this row (SQLSTATE {sqlstate})")
        self.sqlstate = sqlstate


class RowBusy(LedgerAway):
    """Another transaction is in the way of this row (a lock, a deadlock): the same statement works later."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(f"another transaction has locked what is asked for (SQLSTATE {sqlstate})")
        self.sqlstate = sqlstate


class LedgerMisfit(BrokerError):
    """This broker cannot work with this database; the text says what to do."""
