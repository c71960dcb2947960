"""The ledger's types for failure reports: hand-over, claims, events, and rows that can be looked up.

Frozen data without I/O. Personal fields are in the clear, in memory only, and in no repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from broker.lanes.decision import RetryState
from broker.lanes.lane import Lane
from broker.ledger.model import Transition
from schemas.codes import ReportKind


class ReportState(StrEnum):
    """The state of a report (docs/states.md#report). `joining`: a citizen's report waits for its failed request."""

    JOINING = "joining"
    WAITING = "waiting"
    HANDED = "handed"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    DEAD = "dead"
    DISCARDED = "discarded"


_S = ReportState
REPORT_TRANSITIONS = (
    Transition(None, _S.WAITING, "a request failed", "reports.new_reports.INSERT"),
    Transition(None, _S.JOINING, "a citizen's report names a failed request", "reports.new_reports.INSERT"),
    Transition(None, _S.DEAD, "the directory knows no supplier", "reports.new_reports.INSERT"),
    Transition(
        _S.JOINING, _S.WAITING, "its request has ended, or it has waited long enough", "reports.joins.JOIN"
    ),
    Transition(
        _S.WAITING, _S.HANDED, "due, and it fits the lane's window and rate", "reports.handover.HAND_OVER"
    ),
    Transition(
        _S.HANDED, _S.WAITING, "its publish failed or was not confirmed", "reports.revert.UNPUBLISHED"
    ),
    Transition(_S.HANDED, _S.WAITING, "its lane was parked or paused", "reports.revert.OF_CLOSED_LANE"),
    Transition(_S.HANDED, _S.WAITING, "no process claimed it in time", "reports.revert.UNCLAIMED"),
    Transition(_S.HANDED, _S.DELIVERING, "an attempt begins", "reports.attempts.CLAIM"),
    Transition(_S.DELIVERING, _S.DEAD, "its content cannot be decrypted", "reports.attempts.UNREADABLE"),
    Transition(_S.DELIVERING, _S.DELIVERED, "the supplier has it", "reports.attempt_results.FINISH"),
    Transition(
        _S.DELIVERING, _S.WAITING, "the attempt failed: retry or hold", "reports.attempt_results.FINISH"
    ),
    Transition(
        _S.DELIVERING, _S.DEAD, "refused, or its retries are used up", "reports.attempt_results.FINISH"
    ),
    Transition(_S.DELIVERING, _S.WAITING, "its process died", "reports.sweep.CRASHED"),
    Transition(_S.DELIVERING, _S.DEAD, "too many processes died at it", "reports.sweep.CRASHED"),
    Transition(_S.DEAD, _S.WAITING, "replayed", "dead_letters.replay_steps.REPORT"),
    Transition(_S.DEAD, _S.DISCARDED, "an operator discarded it", "dead_letters.letters.DISCARD_REPORTS"),
    Transition(
        _S.JOINING, _S.DISCARDED, "an operator discarded it by id", "dead_letters.letters.DISCARD_NAMED"
    ),
    Transition(
        _S.WAITING, _S.DISCARDED, "an operator discarded it by id", "dead_letters.letters.DISCARD_NAMED"
    ),
    Transition(
        _S.HANDED, _S.DISCARDED, "an operator discarded it by id", "dead_letters.letters.DISCARD_NAMED"
    ),
    Transition(_S.DISCARDED, _S.DEAD, "an operator restored it", "dead_letters.letters.RESTORE_REPORTS"),
)
"""Every change of a report's state."""


UNROUTABLE = "unroutable"
"""The cause of a report for whose jobcenter the directory has no supplier: dead until a replay finds one."""


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """A supplier's limits: `window` reports handed over or being delivered at once, and starts a second."""

    window: int
    rate_per_second: float


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A report that was handed over, to be published on its lane now. Its claim must name the same `number`."""

    report_id: UUID
    number: int
    supplier: str
    probe: bool


@dataclass(frozen=True)
class ReportClaim:
    """The right to make one attempt, which is already recorded; `finish` compares `owner` and `epoch`.

    Keep the object while you work, as with a `Claim`. `attempt` counts all attempts since the report was made.
    `replayed`: an operator has replayed it at least once. `unanswered`: a call with this x-requestId may have been
    taken in, so a 412 means delivered.
    """

    report_id: UUID
    epoch: int
    owner: UUID
    supplier: str
    attempt: int
    x_request_id: str
    tries: RetryState
    probe: bool
    count: int
    kind: ReportKind
    request_id: UUID | None
    jobcenter_code: str
    traceparent: str | None
    content: bytes = field(repr=False)
    replayed: bool = False

    @property
    def unanswered(self) -> bool:
        return self.tries.unanswered


@dataclass(frozen=True, slots=True)
class Joinable:
    """A citizen's report that may go: its failed request has ended, or it has waited long enough.

    `failed` is that request's message, in the clear. None if the request is unknown or another citizen's: the report
    then goes as it is. `failed_answer` is its answer, if it has one.
    """

    report_id: UUID
    content: bytes = field(repr=False)
    failed_type: str | None = None
    failed: bytes | None = field(default=None, repr=False)
    failed_answer: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DueReportEvent:
    """A report that was delivered, became dead or was discarded, and whose event is not published yet."""

    report_id: UUID
    outcome: str
    kind: ReportKind
    request_id: UUID | None
    type: str | None
    error_code: int
    jobcenter_code: str
    supplier: str | None
    cause: str | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A report's columns in the clear."""

    report_id: UUID
    kind: ReportKind
    request_id: UUID | None
    joins: UUID | None
    supplier: str | None
    jobcenter_code: str
    type: str | None
    error_code: int
    count: int
    state: ReportState
    due_at: datetime
    number: int
    handed_at: datetime | None
    owner: UUID | None
    epoch: int
    attempts: int
    retries: int
    crashes: int
    bugs: int
    unanswered: bool
    duplicate: bool
    cause: str | None
    cause_class: str | None
    fault: str | None
    occurred_at: datetime
    created_at: datetime
    last_seen_at: datetime
    first_failed_at: datetime | None
    last_failed_at: datetime | None
    settled_at: datetime | None
    discarded_at: datetime | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt, and its result if there is one. `applied` False: another process had taken the report over."""

    number: int
    owner: UUID
    started_at: datetime
    x_request_id: str
    probe: bool
    finished_at: datetime | None
    verdict: str | None
    cause: str | None
    status: int | None
    fault: str | None
    what: str | None
    milliseconds: int | None
    counted: bool | None
    applied: bool | None


@dataclass(frozen=True, slots=True)
class ReportStory:
    """A report and all its attempts, oldest first."""

    report: ReportRow
    attempts: tuple[AttemptRow, ...]


@dataclass(frozen=True, slots=True)
class LaneRow:
    """A lane, and the number of reports on it."""

    lane: Lane
    next_start_at: datetime
    waiting: int
    handed: int
    delivering: int
    oldest_due_at: datetime | None
