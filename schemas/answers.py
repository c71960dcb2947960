"""The one honest answer to a request (DESIGN 2).

An answer says how it ended and what the citizen may be told. What that is was judged elsewhere.
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
from schemas.fields import Flag, Guid, Instant
from schemas.requests import REQUESTS, CitizenReport
from schemas.wire import MOST_PROBLEMS, FieldProblem, Wire

ANSWER_TYPE: Final = "answer.v1"
"""The AMQP type of an answer."""

MOST_ROWS: Final = 30
"""Ten times, each in up to three mødeformer (release note 3.1)."""


class OffersResult(Wire):
    """The mødetilbud that the citizen may book."""

    offers: tuple[Offer, ...] = Field(
        alias="moedetilbud", max_length=MOST_OFFERS, title="Offers", description="In the Planner's own order."
    )


class TimeRow(Wire):
    """One choice for the citizen: a time, a caseworker and one mødeform."""

    starts_at: Instant = Field(alias="starttidspunkt", title="Start", description="When the meeting starts.")
    ends_at: Instant = Field(alias="sluttidspunkt", title="End", description="When the meeting ends.")
    caseworker: Caseworker = Field(
        alias="sagsbehandler", title="Caseworker", description="Whom the citizen meets."
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
        description="By start; each time once per mødeform.",
    )


class BookingResult(Wire):
    """The meeting as it now stands."""

    booking: Booking = Field(title="Booking", description="The meeting, as the booking system has it.")


class CancelledResult(Wire):
    """The meeting that no longer is."""

    invitation_id: Guid = Field(
        alias="indkaldelseId", title="Invitation id", description="The cancelled meeting."
    )
    cancelled: Literal[True] = Field(
        default=True, alias="aflyst", title="Cancelled", description="Always true."
    )


class ReceiptResult(Wire):
    """The receipt for a citizen's report: it is kept, and will be sent."""

    report_id: Guid = Field(
        alias="reportId", title="Report id", description="The report's id; the supplier is told the same one."
    )
    received_at: Instant = Field(
        alias="receivedAt", title="Received at", description="When the broker took the report over."
    )
    text: Annotated[str, StringConstraints(min_length=1, max_length=1000)] = Field(
        default=RECEIPT_DA, title="Text", description="What the citizen is told, in Danish."
    )


Result = OffersResult | TimesResult | BookingResult | CancelledResult | ReceiptResult


class Asked(Protocol):
    """What an answer must know of its request; a claim knows it as well as the request itself."""

    @property
    def request_id(self) -> UUID: ...
    @property
    def type(self) -> str: ...


class Answer(Wire):
    """How a request ended."""

    request_id: Guid | None = Field(
        default=None,
        alias="requestId",
        title="Request id",
        description="The request's id; left out if it could not be read.",
    )
    type: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        default=None,
        title="Type",
        description="The request's type; left out if this broker does not know it.",
    )
    status: Status = Field(title="Status", description="How the request ended.")
    answered_at: Instant = Field(
        alias="answeredAt", title="Answered at", description="When this answer was decided."
    )
    result: Result | None = Field(
        default=None, title="Result", description="With status done: what was asked for."
    )
    reason: Reason | None = Field(default=None, title="Reason", description="With status refused: why.")
    text: Annotated[str, StringConstraints(max_length=1000)] | None = Field(
        default=None, title="Text", description="What the citizen may be told, in Danish."
    )
    fields: tuple[FieldProblem, ...] = Field(
        default=(),
        max_length=MOST_PROBLEMS + 2,
        title="Wrong fields",
        description="With reason invalid: every wrong field.",
    )
    error_code: ErrorCode | None = Field(
        default=None,
        alias="fejlkode",
        title="Error code",
        description="With status failed: 2 ingen mødetider, 3 ingen mødetilbud, 4 andet problem.",
    )
    error_text: Annotated[str, StringConstraints(max_length=500)] | None = Field(
        default=None,
        alias="fejltekst",
        title="Error text",
        description="With status failed: what happened, in Danish.",
    )
    can_report: Flag = Field(
        default=False,
        alias="canReport",
        title="Can be reported",
        description="Whether the citizen may report this failure to the supplier.",
    )

    @classmethod
    def done(cls, request: Asked, result: Result, *, now: datetime) -> Self:
        """It worked: here is what was asked for."""
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
        """A business no, or a message that cannot be read. A type that we do not know is not repeated."""
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
    def failed(cls, request: Asked, error_code: ErrorCode, text: str | None = None, *, now: datetime) -> Self:
        """It went wrong outside. `text` says what happened, in Danish, at most 500 characters."""
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
    def expired(cls, request: Asked, *, now: datetime) -> Self:
        """It came too late, and nothing was called."""
        return cls._without_result(request, Status.EXPIRED, now)

    @classmethod
    def uncertain(cls, request: Asked, *, now: datetime) -> Self:
        """It was sent, and nobody answered."""
        return cls._without_result(request, Status.UNCERTAIN, now)

    @classmethod
    def _without_result(cls, request: Asked, status: Status, now: datetime) -> Self:
        return cls(
            request_id=request.request_id,
            type=request.type,
            status=status,
            answered_at=now,
            text=TEXTS_DA[status],
        )


def _refusal_text(type: str | None, reason: Reason, fields: tuple[FieldProblem, ...]) -> str:
    """A report's writer is told what is wrong with the report, not something about a booking."""
    if type == CitizenReport.TYPE and reason is Reason.CONFLICT:
        return REPORT_CONFLICT_DA
    if type == CitizenReport.TYPE and any(each.field == "fejltekst" for each in fields):
        return ERROR_TEXT_DA
    return TEXTS_DA[reason]
