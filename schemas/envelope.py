"""How a message is read, and what every request has in common: who asks, for whom, since when, until when.

What a type adds, and the way in with its clock, is in `schemas.requests`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from schemas.fields import Guid, JobcenterCode, RequestInstant, readable_guid, wrong
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
"""How long after `sentAt` an answer is still of use, whatever the deadline says (DESIGN 2)."""

LATEST: Final = "latest"
"""The validation context key of the latest `sentAt` that is accepted; absent, any is."""


Family = Literal["booking", "query", "report"]
"""The first part of a type: bookings change something, queries ask, reports tell a supplier."""


class Message(Wire):
    """A whole body. It is read by its wire names alone, and whatever is wrong with it is named."""

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """The message in `body`, without the skew rule. Raises `InvalidMessage`."""
        return cls.from_fields(parse_object(body, cls.wire_names()))

    @classmethod
    def from_fields(cls, fields: dict[str, Any], *, latest: datetime | None = None) -> Self:
        """The message with these fields, by wire name. Raises `InvalidMessage` that names every wrong one."""
        try:
            return cls.model_validate(fields, by_alias=True, by_name=False, context={LATEST: latest})
        except ValidationError as error:
            problems = problems_of(error)
        # Outside the except block: pydantic's error holds the input and must not hang on ours.
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
    """Whether it is worth nothing after its deadline; then only the wait for the answer ends with it."""

    request_id: Guid = Field(
        alias="requestId",
        title="Request id",
        description="Idempotency key: the same request has the same id.",
    )
    sent_at: RequestInstant = Field(
        alias="sentAt", title="Sent at", description="When the frontend sent this, with offset."
    )
    deadline: RequestInstant | None = Field(
        default=None,
        title="Deadline",
        description="Until when an answer is of use, with offset; at most 30 seconds after sentAt count.",
    )
    cpr: Cpr = Field(
        title="CPR number", description="The citizen's CPR number: ten digits, day and month that exist."
    )
    jobcenter_code: JobcenterCode = Field(
        alias="jobcenterkode", title="Jobcenter code", description="The citizen's jobcenter, five digits."
    )

    @field_validator("sent_at")
    @classmethod
    def _not_from_the_future(cls, sent_at: datetime, info: ValidationInfo) -> datetime:
        latest = (info.context or {}).get(LATEST)
        if latest is not None and sent_at > latest:
            raise wrong("lies in the future; check the sender's clock and offset")
        return sent_at

    @property
    def type(self) -> str:
        """The AMQP type of this message."""
        return self.TYPE

    def effective_deadline(self, patience: timedelta = PATIENCE) -> datetime:
        """The earlier of `deadline` and `sentAt` + patience, in UTC (DESIGN 2)."""
        patient_until = self.sent_at.astimezone(UTC) + patience
        return patient_until if self.deadline is None else min(self.deadline.astimezone(UTC), patient_until)

    def business_fields(self) -> bytes:
        """What makes two requests the same (DESIGN 3 rule 8): canonical JSON, CPR in clear, never kept as is.

        The type counts; sentAt and deadline do not. Defaults are left out, so that a field that is added to
        the contract later changes nothing for the requests already in the ledger.
        """
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
        """The whole message with its CPR number in clear: for sealing only."""
        return self.model_dump_json(by_alias=True, exclude_none=True, context=REVEAL).encode()


def _canonical(value: object) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
