"""Events about ended requests and reports, for statistics: codes and names, no personal data, no free text."""

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
    """How a request or a failure report ended.

    A request: done, refused, failed, expired, uncertain, or unverified (uncertain, and verification gave up).
    A failure report: delivered, dead or discarded; a replay or an undone discard can lead to a
    second event for the same report.
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
    """The outcome of a request, or of a failure report if reportId is present."""

    request_id: Guid | None = Field(
        default=None,
        alias="requestId",
        title="Request id",
        description="Id of the request; absent if it could not be read.",
    )
    type: _Name | None = Field(
        default=None, title="Type", description="AMQP type of the request; absent if the type is unknown."
    )
    report_id: Guid | None = Field(
        default=None,
        alias="reportId",
        title="Report id",
        description="Only with delivered, dead and discarded: id of the failure report.",
    )
    outcome: Outcome = Field(title="Outcome", description="How the request or the report ended.")
    reason: Reason | None = Field(default=None, title="Reason", description="Only with refused: the reason.")
    cause: _Name | None = Field(
        default=None, title="Cause", description="Only with dead and discarded: the cause, in one word."
    )
    error_code: ErrorCode | None = Field(
        default=None, alias="fejlkode", title="Error code", description="Only with failed: the fejlkode."
    )
    jobcenter_code: JobcenterCode | None = Field(
        default=None,
        alias="jobcenterkode",
        title="Jobcenter code",
        description="Code of the jobcenter, five digits; absent if it could not be read.",
    )
    system: _Name | None = Field(
        default=None,
        title="System",
        description="Name of the external system that the request was sent to, or would have been.",
    )
    supplier: _Name | None = Field(
        default=None, title="Supplier", description="Name of the supplier of that system."
    )
    corrects_uncertain: Flag = Field(
        default=False,
        alias="correctsUncertain",
        title="Corrects uncertain",
        description="Whether this event corrects an earlier event with outcome uncertain for the same request.",
    )
    occurred_at: Instant = Field(
        alias="occurredAt", title="Occurred at", description="When the outcome was decided."
    )

    @property
    def routing_key(self) -> str:
        """The routing key on `jobnet.outcomes`: family and outcome, for example `booking.done` or `report.dead`."""
        # A report's `type` is that of the failed request, so it does not give the family.
        family = "report" if self.report_id else self.type.partition(".")[0] if self.type else "unknown"
        return f"{family}.{self.outcome}"
