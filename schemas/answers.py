"""The answer to a request: how the request ended, and the text for the citizen (docs/contract.md#answers).

Data only; broker/settle.py decides which answer a request gets.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal, Protocol, Self
from uuid import UUID

from pydantic import Field, StringConstraints

from schemas.codes import (
    ERROR_TEXT_DA,
    RECEIPT_DA,
    REPORT_CONFLICT_DA,
    TEXTS_DA,
    ErrorCode,
    MeetingForm,
    Reason,
    Status,
)
from schemas.external import MOST_OFFERS, Booking, Caseworker, Offer
from schemas.fields import Flag, Guid, Instant, TimesPage
from schemas.requests import REQUESTS, CitizenReport
from schemas.wire import MOST_PROBLEMS, FieldProblem, Wire

ANSWER_TYPE: Final = "answer.v1"
"""The AMQP type of an answer."""

MOST_ROWS: Final = 30
"""Ten times, each in up to three mødeformer (R2, release note 3.1)."""


class OffersResult(Wire):
    """The mødetilbud that the citizen may book."""

    offers: tuple[Offer, ...] = Field(
        alias="moedetilbud",
        max_length=MOST_OFFERS,
        title="Offers",
        description="In the order in which the Planner lists them.",
    )


class TimeRow(Wire):
    """One choice for the citizen: a time, a caseworker and one mødeform."""

    starts_at: Instant = Field(
        alias="starttidspunkt", title="Start", description="Start of the meeting, with offset."
    )
    ends_at: Instant = Field(
        alias="sluttidspunkt", title="End", description="End of the meeting, with offset."
    )
    caseworker: Caseworker = Field(
        alias="sagsbehandler", title="Caseworker", description="The caseworker whom the citizen will meet."
    )
    form: MeetingForm = Field(
        alias="moedeform", title="Form of meeting", description="How the meeting is held."
    )


class TimesResult(Wire):
    """The times that the citizen may choose from."""

    rows: tuple[TimeRow, ...] = Field(
        alias="tider",
        max_length=MOST_ROWS,
        title="Times",
        description=(
            "Sorted by start. A time appears once for each of its mødeformer, or once if the request named a mødeform. "
            "Empty if no time is left for this page or in this mødeform."
        ),
    )
    next_page: TimesPage | None = Field(
        default=None,
        alias="naesteSide",
        title="Next page",
        description="Send it as side for the times that follow; absent on the last page and for straksbooking.",
    )


class BookingResult(Wire):
    """The meeting after the request."""

    booking: Booking = Field(title="Booking", description="The meeting as the booking system returned it.")


class CancelledResult(Wire):
    """The meeting that was cancelled."""

    invitation_id: Guid = Field(
        alias="indkaldelseId", title="Invitation id", description="Id of the cancelled meeting."
    )
    cancelled: Literal[True] = Field(
        default=True, alias="aflyst", title="Cancelled", description="Always true."
    )


class ReceiptResult(Wire):
    """The receipt for a citizen's report: the report is stored and will be sent to the supplier."""

    report_id: Guid = Field(
        alias="reportId",
        title="Report id",
        description="Id of the report; the supplier receives the same id.",
    )
    received_at: Instant = Field(
        alias="receivedAt", title="Received at", description="When the broker stored the report."
    )
    text: Annotated[str, StringConstraints(min_length=1, max_length=1000)] = Field(
        default=RECEIPT_DA, title="Text", description="Text to show the citizen, in Danish."
    )


Result = OffersResult | TimesResult | BookingResult | CancelledResult | ReceiptResult


class RequestIdentity(Protocol):
    """The parts of a request that its answer needs; a request has them, and so has a claim in the ledger."""

    @property
    def request_id(self) -> UUID: ...
    @property
    def type(self) -> str: ...


class Answer(Wire):
    """The answer to a request: how it ended."""

    request_id: Guid | None = Field(
        default=None,
        alias="requestId",
        title="Request id",
        description="Id of the request; absent if it could not be read.",
    )
    type: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        default=None,
        title="Type",
        description="AMQP type of the request; absent if the broker does not know the type.",
    )
    status: Status = Field(
        title="Status", description="How the request ended: done, refused, failed, expired or uncertain."
    )
    answered_at: Instant = Field(
        alias="answeredAt", title="Answered at", description="When the broker decided this answer."
    )
    result: Result | None = Field(
        default=None, title="Result", description="Only with status done: the data that was asked for."
    )
    reason: Reason | None = Field(
        default=None, title="Reason", description="Only with status refused: the reason."
    )
    text: Annotated[str, StringConstraints(max_length=1000)] | None = Field(
        default=None,
        title="Text",
        description="Text to show the citizen, in Danish; absent with status done.",
    )
    fields: tuple[FieldProblem, ...] = Field(
        default=(),
        max_length=MOST_PROBLEMS + 2,
        title="Wrong fields",
        description="Only with reason invalid: the fields that are wrong.",
    )
    error_code: ErrorCode | None = Field(
        default=None,
        alias="fejlkode",
        title="Error code",
        description="Only with status failed: 2 ingen mødetider, 3 ingen mødetilbud, 4 andet problem.",
    )
    error_text: Annotated[str, StringConstraints(max_length=500)] | None = Field(
        default=None,
        alias="fejltekst",
        title="Error text",
        description="Only with status failed: what happened, in Danish.",
    )
    can_report: Flag = Field(
        default=False,
        alias="canReport",
        title="Can be reported",
        description="Whether the citizen may send a report about this failure to the supplier.",
    )

    @classmethod
    def done(cls, request: RequestIdentity, result: Result, *, now: datetime) -> Self:
        """Success, with the result."""
        return cls(
            request_id=request.request_id,
            type=request.type,
            status=Status.DONE,
            answered_at=now,
            result=result,
        )

    @classmethod
    def refused(
        cls,
        request_id: UUID | None,
        type: str | None,
        reason: Reason,
        fields: tuple[FieldProblem, ...] = (),
        *,
        now: datetime,
    ) -> Self:
        """Refused by a business rule, or as an invalid message. An unknown type is not repeated in the answer."""
        return cls(
            request_id=request_id,
            type=type if type in REQUESTS else None,
            status=Status.REFUSED,
            answered_at=now,
            reason=reason,
            text=_refusal_text(type, reason, fields),
            fields=fields,
        )

    @classmethod
    def failed(
        cls, request: RequestIdentity, error_code: ErrorCode, text: str | None = None, *, now: datetime
    ) -> Self:
        """A call to an external system failed. `text` says what happened, in Danish, at most 500 characters."""
        return cls(
            request_id=request.request_id,
            type=request.type,
            status=Status.FAILED,
            answered_at=now,
            text=TEXTS_DA[error_code],
            error_code=error_code,
            error_text=text or TEXTS_DA[error_code],
            can_report=True,
        )

    @classmethod
    def expired(cls, request: RequestIdentity, *, now: datetime) -> Self:
        """The request came after its deadline; no external system was called."""
        return cls._without_result(request, Status.EXPIRED, now)

    @classmethod
    def uncertain(cls, request: RequestIdentity, *, now: datetime) -> Self:
        """The call was sent, and its result is unknown."""
        return cls._without_result(request, Status.UNCERTAIN, now)

    @classmethod
    def _without_result(cls, request: RequestIdentity, status: Status, now: datetime) -> Self:
        return cls(
            request_id=request.request_id,
            type=request.type,
            status=status,
            answered_at=now,
            text=TEXTS_DA[status],
        )


def _refusal_text(type: str | None, reason: Reason, fields: tuple[FieldProblem, ...]) -> str:
    """The text of a refusal; a citizen's report has texts of its own, because the usual ones speak of a booking."""
    if type == CitizenReport.TYPE and reason is Reason.CONFLICT:
        return REPORT_CONFLICT_DA
    if type == CitizenReport.TYPE and any(each.field == "fejltekst" for each in fields):
        return ERROR_TEXT_DA
    return TEXTS_DA[reason]
