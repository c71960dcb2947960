"""A failure report for a supplier, in both formats a supplier may want, and what travels on its lane (DESIGN 6).

`Report` is what the ledger keeps sealed; the two bodies are parts of it. Which failures become reports, when
they are sent and what counts as delivered is judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, StringConstraints

from schemas.codes import Origin, ReportKind
from schemas.envelope import Message
from schemas.fields import FailureCode, FailureText, Guid, JobcenterCode, RequestInstant, Whole
from schemas.personal import REVEAL, Cpr
from schemas.wire import Wire

COPENHAGEN: Final = ZoneInfo("Europe/Copenhagen")

CONTRACT_BODY: Final = "report.contract.v1"
WEBHOOK_BODY: Final = "report.webhook.v1"
"""The names of the two bodies' schemas; over HTTP neither is sent as a type."""

LANE_TYPE: Final = "report.deliver.v1"
"""The AMQP type of what travels on a lane."""

_Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
_DanishInstant = Annotated[RequestInstant, AfterValidator(partial(datetime.astimezone, tz=COPENHAGEN))]


class FailureOrigin(Wire):
    """FejlOphav: the system where the failure arose. Only 30 (DFDG) and 32 (Jobnet) are legal (domain.md 1.3)."""

    id: Literal[Origin.JOBNET] = Field(
        default=Origin.JOBNET, title="System id", description="Always 32: this broker speaks for Jobnet."
    )
    name: Literal["Jobnet"] = Field(
        default="Jobnet", alias="navn", title="System name", description="Always Jobnet."
    )


class ContractBody(Message):
    """A Fejlmelding as the BorgerBooking contract has it; the CPR number goes in the header."""

    offer_id: Guid | None = Field(
        default=None,
        alias="moedetilbudId",
        title="Offer id",
        description="The mødetilbud it concerns; left out if there is none.",
    )
    invitation_id: Guid | None = Field(
        default=None,
        alias="indkaldelseId",
        title="Invitation id",
        description="The meeting it concerns; left out if there is none, as when a new booking failed.",
    )
    error_code: FailureCode = Field(
        alias="fejlkode",
        title="Error code",
        description="2 ingen mødetider, 3 ingen mødetilbud, 4 andet problem oplevet på Jobnet.",
    )
    error_text: FailureText = Field(
        alias="fejltekst",
        title="Error text",
        description="What happened, in Danish; the citizen's own words if the citizen wrote.",
        repr=False,
    )
    origin: FailureOrigin = Field(
        default=FailureOrigin(), alias="fejlOphav", title="Origin", description="Where the failure arose."
    )
    occurred_at: _DanishInstant = Field(
        alias="fejlTidspunkt",
        title="Occurred at",
        description="When it failed, with the offset of Europe/Copenhagen.",
    )


class WebhookBody(ContractBody):
    """The same failure for a supplier that takes a signed webhook: everything is in the body."""

    report_id: Guid = Field(
        alias="reportId",
        title="Report id",
        description="The same in every try and every replay, and equal to the header webhook-id.",
    )
    kind: ReportKind = Field(
        title="Kind", description="automatic: the broker saw it fail; citizen: a citizen reported it."
    )
    cpr: Cpr = Field(title="CPR number", description="The citizen's CPR number, ten digits.")
    jobcenter_code: JobcenterCode = Field(
        alias="jobcenterkode", title="Jobcenter code", description="The citizen's jobcenter, five digits."
    )
    request_id: Guid | None = Field(
        default=None,
        alias="requestId",
        title="Request id",
        description="The request that failed; left out if the citizen named none that is known.",
    )
    type: _Name | None = Field(
        default=None,
        alias="requestType",
        title="Request type",
        description="What was asked for, such as booking.book.v1.",
    )
    count: Annotated[Whole, Field(ge=1)] = Field(
        default=1,
        alias="antal",
        title="Count",
        description="How many equal failures inside ten minutes this report stands for.",
    )


class Report(WebhookBody):
    """A failure report with what routes it: the supplier's name in the directory, and the trace it belongs to.

    `supplier` is None while the directory does not know the jobcenter (dead letter `unroutable`).
    """

    supplier: _Name | None = Field(default=None, title="Supplier", description="Whose lane it goes on.")
    traceparent: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        default=None, title="Traceparent", description="The W3C trace of the request that failed."
    )

    def to_contract(self) -> bytes:
        """The body of a Fejlmelding. Without the CPR number, which goes in the header of the call."""
        return self._part(ContractBody.model_fields)

    def to_webhook(self) -> bytes:
        """The body of a signed webhook, with the CPR number in clear: for the call to the supplier only."""
        return self._part(WebhookBody.model_fields, context=REVEAL)

    def to_json(self) -> bytes:
        """The whole report with its CPR number in clear: for sealing only. `from_json` reads it back."""
        return self._part(Report.model_fields, context=REVEAL)

    def _part(self, names: Iterable[str], **more: Any) -> bytes:
        return self.model_dump_json(include=set(names), by_alias=True, exclude_none=True, **more).encode()


class LaneMessage(Message):
    """What travels on a lane: which report is to be delivered now. The claim returns its sealed content."""

    report_id: Guid = Field(alias="reportId", title="Report id", description="The report to deliver.")
    number: Annotated[Whole, Field(ge=1)] = Field(
        title="Number",
        description="Which handing over this is; a message with another number than the row is dropped.",
    )
    supplier: _Name = Field(title="Supplier", description="Whose lane it is on.")
