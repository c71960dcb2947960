"""A failure report in both formats (docs/contract.md#fejlmelding, #webhook), and the message on its lane.

The ledger stores `Report` sealed; both bodies are parts of it. Which failures become reports, when they are sent
and what counts as delivered is decided in broker/reports and broker/lanes.
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
"""The names of the schemas of both bodies; neither name is sent over HTTP."""

LANE_TYPE: Final = "report.deliver.v1"
"""The AMQP type of a message on a lane."""

_Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
_DanishInstant = Annotated[RequestInstant, AfterValidator(partial(datetime.astimezone, tz=COPENHAGEN))]


class FailureOrigin(Wire):
    """FejlOphav: the system in which the failure arose. The contract allows 30 (DFDG) and 32 (Jobnet)."""

    id: Literal[Origin.JOBNET] = Field(
        default=Origin.JOBNET, title="System id", description="Always 32, which is Jobnet."
    )
    name: Literal["Jobnet"] = Field(
        default="Jobnet", alias="navn", title="System name", description="Always Jobnet."
    )


class ContractBody(Message):
    """A Fejlmelding as the BorgerBooking contract defines it. The CPR number is sent in a header."""

    offer_id: Guid | None = Field(
        default=None,
        alias="moedetilbudId",
        title="Offer id",
        description="The mødetilbud that the failure is about; absent if there is none.",
    )
    invitation_id: Guid | None = Field(
        default=None,
        alias="indkaldelseId",
        title="Invitation id",
        description="The meeting that the failure is about; absent if there is none, as after a new booking failed.",
    )
    error_code: FailureCode = Field(
        alias="fejlkode",
        title="Error code",
        description="2 ingen mødetider, 3 ingen mødetilbud, 4 andet problem oplevet på Jobnet.",
    )
    error_text: FailureText = Field(
        alias="fejltekst",
        title="Error text",
        description="What happened, in Danish; in a citizen's report, the citizen's own text.",
        repr=False,
    )
    origin: FailureOrigin = Field(
        default=FailureOrigin(),
        alias="fejlOphav",
        title="Origin",
        description="The system in which the failure arose.",
    )
    occurred_at: _DanishInstant = Field(
        alias="fejlTidspunkt",
        title="Occurred at",
        description="When the failure happened, with the offset of Europe/Copenhagen.",
    )


class WebhookBody(ContractBody):
    """A failure report as a signed webhook: all data is in the body."""

    report_id: Guid = Field(
        alias="reportId",
        title="Report id",
        description="Id of the report: the same in every retry, and equal to the header webhook-id.",
    )
    kind: ReportKind = Field(
        title="Kind", description="automatic: the broker saw the failure; citizen: a citizen reported it."
    )
    cpr: Cpr = Field(title="CPR number", description="The citizen's CPR number, ten digits.")
    jobcenter_code: JobcenterCode = Field(
        alias="jobcenterkode",
        title="Jobcenter code",
        description="Code of the citizen's jobcenter, five digits.",
    )
    request_id: Guid | None = Field(
        default=None,
        alias="requestId",
        title="Request id",
        description="Id of the request that failed; absent if the citizen named no known request.",
    )
    type: _Name | None = Field(
        default=None,
        alias="requestType",
        title="Request type",
        description="AMQP type of the request that failed, for example booking.book.v1.",
    )
    count: Annotated[Whole, Field(ge=1)] = Field(
        default=1,
        alias="antal",
        title="Count",
        description="Number of equal failures within ten minutes that this report stands for.",
    )


class Report(WebhookBody):
    """A failure report with its routing data: the name of the supplier in the directory, and the trace.

    `supplier` is None while the directory does not know the jobcenter (dead letter `unroutable`).
    """

    supplier: _Name | None = Field(
        default=None, title="Supplier", description="The supplier that receives the report."
    )
    traceparent: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        default=None, title="Traceparent", description="The W3C trace of the request that failed."
    )

    def to_contract(self) -> bytes:
        """The body of a Fejlmelding, without the CPR number, which is sent in a header."""
        return self._part(ContractBody.model_fields)

    def to_webhook(self) -> bytes:
        """The body of a signed webhook, with the CPR number in clear: for the call to the supplier only."""
        return self._part(WebhookBody.model_fields, context=REVEAL)

    def to_json(self) -> bytes:
        """The whole report with the CPR number in clear: for sealing only. `from_json` reads it back."""
        return self._part(Report.model_fields, context=REVEAL)

    def _part(self, names: Iterable[str], **more: Any) -> bytes:
        return self.model_dump_json(include=set(names), by_alias=True, exclude_none=True, **more).encode()


class LaneMessage(Message):
    """A message on a lane: the report that is to be delivered now. Its content stays in the ledger."""

    report_id: Guid = Field(alias="reportId", title="Report id", description="Id of the report to deliver.")
    number: Annotated[Whole, Field(ge=1)] = Field(
        title="Number",
        description="Number of this hand-over; a message whose number is not the current one is dropped.",
    )
    supplier: _Name = Field(title="Supplier", description="The supplier whose lane this is.")
