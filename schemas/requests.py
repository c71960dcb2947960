"""The requests that a frontend can send (docs/contract.md#messages), and `read_request`.

`REQUESTS` has a row for each type and version. A new version is a new class beside the old one, which stays readable
until the version after it. Whether a request may be carried out is decided in broker/requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from schemas.codes import ErrorCode, MeetingForm
from schemas.envelope import Family, Request
from schemas.fields import (
    CaseworkerId,
    ContactGroup,
    FailureCode,
    FailureText,
    Flag,
    NoInvitation,
    NoOffer,
    RequestGuid,
    RequestInstant,
    TimesPage,
    readable_guid,
    wrong,
)
from schemas.personal import group_without_cpr, without_cpr
from schemas.strict_json import parse_object
from schemas.wire import FieldProblem, InvalidMessage

_ContactGroup = Annotated[ContactGroup, AfterValidator(group_without_cpr)]
_CaseworkerId = Annotated[CaseworkerId, AfterValidator(without_cpr)]

_OFFER: Final[Any] = Field(
    alias="moedetilbudId", title="Offer id", description="Id of the mødetilbud, as received in the offers."
)
_INVITATION: Final[Any] = Field(
    alias="indkaldelseId", title="Invitation id", description="Id of the meeting."
)
_NO_OFFER: Final[Any] = Field(
    default=None,
    alias="moedetilbudId",
    title="No offer id",
    description="Must be absent: this type names a meeting by indkaldelseId.",
)
_NO_INVITATION: Final[Any] = Field(
    default=None,
    alias="indkaldelseId",
    title="No invitation id",
    description="Must be absent: this type names an offer by moedetilbudId.",
)
_CASEWORKER: Final[Any] = Field(
    default=None,
    alias="sagsbehandlerId",
    title="Caseworker id",
    description=(
        "Id of the caseworker; if present, only meetings with this caseworker. It must not look like a CPR number."
    ),
)
_IMMEDIATE: Final[Any] = Field(
    default=False,
    alias="straksbooking",
    title="Immediate booking",
    description="Whether the request is about straksbooking.",
)


class _WithContactGroup(Request):
    contact_group: _ContactGroup = Field(
        default=None,
        alias="kontaktgruppe",
        title="Contact group",
        description=(
            "The citizen's kontaktgruppe. If it is absent, null or empty, the request is refused. It must not look like "
            "a CPR number."
        ),
    )


class QueryOffers(_WithContactGroup):
    """Mødetilbud: asks for the meetings that the citizen may book."""

    TYPE: ClassVar[str] = "query.offers.v1"
    FAMILY: ClassVar[Family] = "query"

    immediate: Flag = _IMMEDIATE


class QueryTimes(_WithContactGroup):
    """Mødetider: asks for the times of a mødetilbud."""

    TYPE: ClassVar[str] = "query.times.v1"
    FAMILY: ClassVar[Family] = "query"

    offer_id: RequestGuid = _OFFER
    immediate: Flag = _IMMEDIATE
    from_at: RequestInstant | None = Field(
        default=None, alias="fra", title="From", description="Only times from here on, with offset."
    )
    to_at: RequestInstant | None = Field(
        default=None,
        alias="til",
        title="To",
        description="Only times up to here, with offset; must be later than fra.",
    )
    caseworker_id: _CaseworkerId | None = _CASEWORKER
    form: MeetingForm | None = Field(
        default=None,
        alias="moedeform",
        title="Form of meeting",
        description="Only times with this mødeform, one row each. Not for straksbooking.",
    )
    page: TimesPage | None = Field(
        default=None,
        alias="side",
        title="Page",
        description=(
            "The naesteSide of an earlier answer: the times after it. Repeat the other fields as they were. Not for "
            "straksbooking."
        ),
    )

    @field_validator("form", "page")
    @classmethod
    def _not_immediate(cls, value: object, info: ValidationInfo) -> object:
        if value is not None and info.data.get("immediate"):
            raise wrong("must be left out for straksbooking")
        return value

    @field_validator("to_at")
    @classmethod
    def _after_from(cls, to_at: datetime | None, info: ValidationInfo) -> datetime | None:
        from_at = info.data.get("from_at")
        if to_at is not None and from_at is not None and to_at <= from_at:
            raise wrong("must be later than fra")
        return to_at


class _Wished(_WithContactGroup):
    """A meeting as the citizen wants it."""

    FAMILY: ClassVar[Family] = "booking"

    starts_at: RequestInstant = Field(
        alias="starttidspunkt",
        title="Start",
        description="Start of the meeting, with offset, as received in the times.",
    )
    form: MeetingForm = Field(
        alias="moedeform", title="Form of meeting", description="The mødeform that the citizen chose."
    )
    caseworker_id: _CaseworkerId | None = _CASEWORKER


class Book(_Wished):
    """Selvbooking: books a time of a mødetilbud."""

    TYPE: ClassVar[str] = "booking.book.v1"

    offer_id: RequestGuid = _OFFER
    invitation_id: NoInvitation = _NO_INVITATION


class BookImmediate(_Wished):
    """Straksbooking (immediate booking): books a time of a mødetilbud."""

    TYPE: ClassVar[str] = "booking.immediate.v1"

    offer_id: RequestGuid = _OFFER
    invitation_id: NoInvitation = _NO_INVITATION


class Rebook(_Wished):
    """Ombooking: moves a meeting to another time."""

    TYPE: ClassVar[str] = "booking.rebook.v1"

    invitation_id: RequestGuid = _INVITATION
    offer_id: NoOffer = _NO_OFFER


class Accept(Request):
    """Accept af booking: the citizen accepts a proposed meeting."""

    TYPE: ClassVar[str] = "booking.accept.v1"
    FAMILY: ClassVar[Family] = "booking"

    invitation_id: RequestGuid = _INVITATION
    offer_id: NoOffer = _NO_OFFER


class Cancel(Request):
    """Aflysning: the citizen cancels a meeting."""

    TYPE: ClassVar[str] = "booking.cancel.v1"
    FAMILY: ClassVar[Family] = "booking"

    invitation_id: RequestGuid = _INVITATION
    offer_id: NoOffer = _NO_OFFER


class CitizenReport(Request):
    """Indmeld booking-fejl: the citizen reports a failure to the supplier, in the citizen's own words."""

    TYPE: ClassVar[str] = "report.citizen.v1"
    FAMILY: ClassVar[Family] = "report"
    EXPIRES: ClassVar[bool] = False

    immediate: Flag = _IMMEDIATE
    error_code: FailureCode = Field(
        alias="fejlkode",
        title="Error code",
        description="2 ingen mødetider (never for straksbooking), 3 ingen mødetilbud, 4 andet problem.",
    )
    error_text: FailureText = Field(
        alias="fejltekst",
        title="Error text",
        description=(
            "The citizen's own words: 1 to 500 characters, counted as Unicode code points in NFC. Control characters "
            "are not allowed, except line breaks (CR LF and CR become LF)."
        ),
        repr=False,
    )
    failed_request_id: RequestGuid | None = Field(
        default=None,
        alias="failedRequestId",
        title="Failed request id",
        description="The requestId of the request that failed, if the report is about one.",
    )
    offer_id: RequestGuid | None = Field(
        default=None,
        alias="moedetilbudId",
        title="Offer id",
        description="The mødetilbud that the report is about, if any.",
    )
    invitation_id: RequestGuid | None = Field(
        default=None,
        alias="indkaldelseId",
        title="Invitation id",
        description="The meeting that the report is about, if any.",
    )

    @field_validator("error_code")
    @classmethod
    def _possible_for_its_kind(cls, code: ErrorCode, info: ValidationInfo) -> ErrorCode:
        if code is ErrorCode.NO_TIMES and info.data.get("immediate"):
            raise wrong("must not be 2 (ingen mødetider) for straksbooking; 4 stands for it there")
        return code


REQUESTS: Final[dict[str, type[Request]]] = {
    model.TYPE: model
    for model in (QueryOffers, QueryTimes, Book, BookImmediate, Rebook, Accept, Cancel, CitizenReport)
}
"""Every type and version that this broker reads."""

CLOCK_SKEW: Final = timedelta(seconds=60)
"""How far the sender's clock may be ahead of the broker's."""

_KNOWN_FIELDS: Final = frozenset[str]().union(*(model.wire_names() for model in REQUESTS.values()))
_VERSIONED: Final = re.compile(r"(?P<name>[a-z]+\.[a-z]+)\.v(?P<version>[0-9]{1,4})")
_CONTENT_TYPE: Final = re.compile(r'application/json(\s*;\s*charset\s*=\s*"?utf-8"?)?', re.IGNORECASE)


def read_request(
    type: str | None,
    content_type: str | None,
    body: bytes,
    *,
    now: datetime,
    skew: timedelta = CLOCK_SKEW,
    max_bytes: int,
) -> Request:
    """The request in `body`; `type` and `content_type` are its AMQP properties.

    Raises InvalidMessage, which names every problem and repeats no input.
    """
    problems = [*_type_problems(type), *_content_type_problems(content_type)]
    request: Request | None = None
    request_id = None
    try:
        fields = parse_object(body, _KNOWN_FIELDS, max_bytes=max_bytes)
        request_id = readable_guid(fields.get("requestId"))
        if type in REQUESTS:
            request = REQUESTS[type].from_fields(fields, latest=now + skew)
    except InvalidMessage as error:
        problems += error.problems
        request_id = error.request_id
    if request is None or problems:
        raise InvalidMessage(*problems, request_id=request_id)
    return request


def _type_problems(type: str | None) -> Iterator[FieldProblem]:
    if type in REQUESTS:
        return
    if not type:
        yield FieldProblem(
            field="type", problem="is required: the AMQP property type, such as booking.book.v1"
        )
        return
    match = _VERSIONED.fullmatch(type)
    versions = _versions(match["name"]) if match else []
    if match and versions:
        asked = f"version {match['version']} of {match['name']}"
        problem = f"{asked} is unknown; this broker reads {' and '.join(versions)}"
    else:
        problem = f"is unknown; this broker reads {', '.join(REQUESTS)}"
    yield FieldProblem(field="type", problem=problem)


def _versions(name: str) -> list[str]:
    return [known.rpartition(".")[2] for known in REQUESTS if known.rpartition(".")[0] == name]


def _content_type_problems(content_type: str | None) -> Iterator[FieldProblem]:
    if content_type is not None and not _CONTENT_TYPE.fullmatch(content_type):
        yield FieldProblem(field="content_type", problem="must be application/json in UTF-8, or left out")
