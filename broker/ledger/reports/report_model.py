"""The words of the ledger for failure reports: what a delivery holds, what can be looked up.

Plain frozen data without I/O. What is personal is in the clear here, lives in memory only, and is in no repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from broker.lanes.decision import RetryState
from broker.lanes.lane import Lane
from schemas.codes import ReportKind


class ReportState(StrEnum):
    """Where a report stands (DESIGN 6). `joining`: a citizen's report waits for its failed request."""

    JOINING = "joining"
    WAITING = "waiting"
    HANDED = "handed"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    DEAD = "dead"
    DISCARDED = "discarded"


UNROUTABLE = "unroutable"
"""The cause of a report whose jobcenter the directory does not know: dead, until a replay finds a supplier."""


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """What one supplier takes: `window` reports handed over or being delivered at once; starts a second."""

    window: int
    rate_per_second: float


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A report that was handed over: to be published on its lane now. A claim needs this very `number`."""

    report_id: UUID
    number: int
    supplier: str
    probe: bool


@dataclass(frozen=True)
class ReportClaim:
    """The right to make one attempt; `finish` compares `owner` and `epoch`. Its intent is written down already.

    Hold on to the object while you work, as with a `Claim`. `attempt` counts all attempts of the report's life.
    `replayed`: a person has put it back on its way at least once.
    `unanswered`: an attempt under this very x-requestId was sent and nobody answered, so a 412 is a delivery.
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
    """A citizen's report that may go: its failed request is settled, or it has waited long enough.

    `failed` is that request's message, in the clear; None if it is not settled, not known, or not the same
    citizen's: then the report goes with what it has.
    """

    report_id: UUID
    content: bytes = field(repr=False)
    failed_type: str | None = None
    failed: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DueReportEvent:
    """A report that was delivered, died or was discarded, and nobody has been told."""

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
    """Everything the ledger knows of a report without opening what is sealed."""

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
    """One attempt: its intent, and its result if one was written down. `applied` False: it had been overtaken."""

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
    """A lane, and what stands on it."""

    lane: Lane
    next_start_at: datetime
    waiting: int
    handed: int
    delivering: int
    oldest_due_at: datetime | None
