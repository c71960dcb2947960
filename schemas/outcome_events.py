"""What became of a request or a report, for whoever counts: codes and names, nothing personal, no free text."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from schemas.codes import ErrorCode, Reason
from schemas.fields import Flag, Guid, Instant, JobcenterCode
from schemas.wire import Wire

OUTCOME_TYPE: Final = "outcome.v1"
"""The AMQP type of an outcome event."""

_Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class Outcome(StrEnum):
    """How it ended; `unverified` is an uncertain booking that verification gave up (DESIGN 3 rule 9).

    The last three are ends of a failure report, which a replay or an undone discard can follow with another.
    """

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"
    UNCERTAIN = "uncertain"
    UNVERIFIED = "unverified"
    DELIVERED = "delivered"
    DEAD = "dead"
    DISCARDED = "discarded"


class OutcomeEvent(Wire):
    """One outcome of one request, or of one failure report: then `report_id` is set."""

    request_id: Guid | None = Field(
        default=None, alias="requestId", title="Request id", description="Left out if it could not be read."
    )
    type: _Name | None = Field(
        default=None, title="Type", description="The request's type; left out if unknown."
    )
    report_id: Guid | None = Field(
        default=None,
        alias="reportId",
        title="Report id",
        description="With delivered, dead and discarded: the failure report that ended.",
    )
    outcome: Outcome = Field(title="Outcome", description="How it ended.")
    reason: Reason | None = Field(default=None, title="Reason", description="Why it was refused.")
    cause: _Name | None = Field(
        default=None, title="Cause", description="Why a report is dead or was discarded, as one word."
    )
    error_code: ErrorCode | None = Field(
        default=None, alias="fejlkode", title="Error code", description="The code of a failure."
    )
    jobcenter_code: JobcenterCode | None = Field(
        default=None,
        alias="jobcenterkode",
        title="Jobcenter code",
        description="Left out if it could not be read.",
    )
    system: _Name | None = Field(
        default=None, title="System", description="The external system it was about."
    )
    supplier: _Name | None = Field(default=None, title="Supplier", description="The supplier of that system.")
    corrects_uncertain: Flag = Field(
        default=False,
        alias="correctsUncertain",
        title="Corrects uncertain",
        description="Whether an earlier event of this request said uncertain.",
    )
    occurred_at: Instant = Field(alias="occurredAt", title="Occurred at", description="When it was decided.")

    @property
    def routing_key(self) -> str:
        """Where it goes on `jobnet.outcomes`: family and outcome, such as `booking.done`, `report.dead`."""
        # A report's type is that of the request that failed: it says what it is about, not what it is.
        family = "report" if self.report_id else self.type.partition(".")[0] if self.type else "unknown"
        return f"{family}.{self.outcome}"
