"""Reading a message, and the fields that every request has: ids, times, CPR number and jobcenter.

`schemas.requests` has the fields of each type and `read_request`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from schemas.fields import LATEST, JobcenterCode, RequestGuid, RequestInstant, latest_of, readable_guid, wrong
from schemas.personal import REVEAL, Cpr
from schemas.strict_json import parse_object
from schemas.wire import FieldProblem, InvalidMessage, Wire, problems_of

__all__ = [
    "PATIENCE",
    "Family",
    "FieldProblem",
    "InvalidMessage",
    "Message",
    "Request",
    "Wire",
    "problems_of",
]

PATIENCE: Final = timedelta(seconds=30)
"""How long after `sentAt` an answer is of use; a later `deadline` does not extend it."""

Family = Literal["booking", "query", "report"]
"""The first part of a type: bookings change data, queries read, reports inform a supplier."""


class Message(Wire):
    """The body of a message, read by its wire names only."""

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """The message in `body`, without the checks that are for arrivals only. Raises InvalidMessage."""
        return cls.from_fields(parse_object(body, cls.wire_names()))

    @classmethod
    def from_fields(cls, fields: dict[str, Any], *, latest: datetime | None = None) -> Self:
        """The message with these fields, by wire name. Raises InvalidMessage, which names every wrong field.

        `latest`: the latest `sentAt` that is accepted, for a message that arrives now.
        """
        try:
            return cls.model_validate(fields, by_alias=True, by_name=False, context={LATEST: latest})
        except ValidationError as error:
            problems = problems_of(error)
        # Raised outside the except block: pydantic's error holds the input and must not be chained to this one.
        raise InvalidMessage(*problems, request_id=readable_guid(fields.get("requestId")))

    @classmethod
    @cache
    def wire_names(cls) -> frozenset[str]:
        """The names of this type's fields on the wire."""
        return frozenset(field.alias or name for name, field in cls.model_fields.items())


class Request(Message):
    """The fields of every request."""

    TYPE: ClassVar[str]
    FAMILY: ClassVar[Family]
    EXPIRES: ClassVar[bool] = True
    """Whether the request expires at its deadline. If not, only the wait for the answer ends there."""

    request_id: RequestGuid = Field(
        alias="requestId",
        title="Request id",
        description=(
            "Idempotency key: a UUID that stays the same when the request is sent again; not the nil UUID."
        ),
    )
    sent_at: RequestInstant = Field(
        alias="sentAt", title="Sent at", description="When the frontend sent the request, with offset."
    )
    deadline: RequestInstant | None = Field(
        default=None,
        title="Deadline",
        description="Latest time at which an answer is of use, with offset; at most sentAt plus 30 seconds.",
    )
    cpr: Cpr = Field(
        title="CPR number",
        description="The citizen's CPR number: ten digits, with a day and a month that exist.",
    )
    jobcenter_code: JobcenterCode = Field(
        alias="jobcenterkode",
        title="Jobcenter code",
        description="Code of the citizen's jobcenter, five digits.",
    )

    @field_validator("sent_at")
    @classmethod
    def _not_from_the_future(cls, sent_at: datetime, info: ValidationInfo) -> datetime:
        latest = latest_of(info)
        if latest is not None and sent_at > latest:
            raise wrong("lies in the future; check the sender's clock and offset")
        return sent_at

    @property
    def type(self) -> str:
        """The AMQP type of this message."""
        return self.TYPE

    def effective_deadline(self, patience: timedelta = PATIENCE) -> datetime:
        """The earlier of `deadline` and `sentAt` + patience, in UTC."""
        patient_until = self.sent_at.astimezone(UTC) + patience
        return patient_until if self.deadline is None else min(self.deadline.astimezone(UTC), patient_until)

    def business_fields(self) -> bytes:
        """The fields by which two requests with one id are compared (R8): canonical JSON, CPR number in clear.

        The type is included, sentAt and deadline are not. Never store the result: store a keyed hash of it.
        """
        # Defaults are left out, so that a field added to the contract later does not change older requests.
        fields = self.model_dump(
            by_alias=True, exclude={"sent_at", "deadline"}, exclude_defaults=True, context=REVEAL
        )
        return json.dumps(
            {"type": self.TYPE, **fields},
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            default=_canonical,
        ).encode()

    def to_json(self) -> bytes:
        """The whole message with the CPR number in clear: for sealing only."""
        return self.model_dump_json(by_alias=True, exclude_none=True, context=REVEAL).encode()


def _canonical(value: object) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
