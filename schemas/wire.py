"""The base class of all messages, and the description of wrong fields.

A wrong field is described by its wire name and a sentence from this package. Pydantic's own messages are not passed
on, because they may repeat input.
"""

from __future__ import annotations

from typing import Annotated, Final, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from schemas.codes import MeetingForm

MOST_PROBLEMS: Final = 50
"""At most this many wrong fields are listed."""

LONGEST_FIELD: Final = 200
"""Characters of the path of a field."""


class Wire(BaseModel):
    """A message or a part of one: frozen, unknown fields ignored, wire names as explicit aliases."""

    model_config = ConfigDict(
        frozen=True, populate_by_name=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False
    )

    def to_json(self) -> bytes:
        """This part as JSON: wire names, no null fields, CPR numbers masked."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class FieldProblem(Wire):
    """A wrong field: its name (a dotted path, never a value), and a sentence that continues the name."""

    field: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_FIELD)] = Field(
        title="Field",
        description="Name of the wrong field; body, type or content_type if the problem concerns the whole message.",
    )
    problem: Annotated[str, StringConstraints(min_length=1, max_length=500)] = Field(
        title="Problem", description="What is wrong with the field, in English, for developers."
    )


class InvalidMessage(Exception):
    """The message cannot be read. `problems` has every wrong field; `request_id` is the id if it could be read."""

    def __init__(self, *problems: FieldProblem, request_id: UUID | None = None) -> None:
        super().__init__("; ".join(f"{each.field} {each.problem}" for each in problems))
        self.problems = problems
        self.request_id = request_id

    @classmethod
    def about(cls, field: str, problem: str) -> Self:
        """An InvalidMessage with one problem."""
        return cls(FieldProblem(field=field, problem=problem))


SENTENCE: Final = "sentence"
"""The type of the validation errors that `schemas.fields` raises."""

_SENTENCES: Final = {
    "missing": "is required",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "string_type": "must be a string",
    "string_too_short": "is too short",
    "string_too_long": "is too long",
    "too_short": "has too few entries",
    "too_long": "has too many entries",
    "tuple_type": "must be a list",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "enum": f"must be one of {', '.join(MeetingForm)}",
}


def problems_of(error: ValidationError) -> tuple[FieldProblem, ...]:
    """Every wrong field that pydantic found, as sentences of this package; at most MOST_PROBLEMS."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return tuple(
        FieldProblem(
            field=".".join(map(str, each["loc"]))[:LONGEST_FIELD] or "body",
            problem=each["msg"] if each["type"] == SENTENCE else _SENTENCES.get(each["type"], "is not valid"),
        )
        for each in found[:MOST_PROBLEMS]
    )
