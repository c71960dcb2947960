"""The base of everything on the wire, and how wrong fields are named.

A wrong field is named by its wire name and a sentence of ours. Pydantic's own words are never passed on,
because they may repeat what came in.
"""

from __future__ import annotations

from typing import Annotated, Final, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from schemas.codes import MeetingForm

MOST_PROBLEMS: Final = 50
"""More wrong fields than this are not listed: ten thousand wrong entries are one fault."""

LONGEST_FIELD: Final = 200
"""Characters of a field's path."""


class Wire(BaseModel):
    """A frozen part of a message. Unknown fields are ignored; wire names are explicit aliases."""

    model_config = ConfigDict(
        frozen=True, populate_by_name=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False
    )

    def to_json(self) -> bytes:
        """This part as its reader sees it: wire names, absent fields left out, CPR numbers masked."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class FieldProblem(Wire):
    """One wrong field: its wire name (a dotted path, never a value) and a sentence that follows the name."""

    field: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_FIELD)] = Field(
        title="Field",
        description="The wire name of the wrong field; body, type or content_type for the message.",
    )
    problem: Annotated[str, StringConstraints(min_length=1, max_length=500)] = Field(
        title="Problem", description="What is wrong with it, in English, for the frontend's developer."
    )


class InvalidMessage(Exception):
    """The message cannot be read. `problems` name every wrong field; `request_id` is its id if it has one."""

    def __init__(self, *problems: FieldProblem, request_id: UUID | None = None) -> None:
        super().__init__("; ".join(f"{each.field} {each.problem}" for each in problems))
        self.problems = problems
        self.request_id = request_id

    @classmethod
    def about(cls, field: str, problem: str) -> Self:
        """One problem of one field."""
        return cls(FieldProblem(field=field, problem=problem))


SENTENCE: Final = "sentence"
"""The type of the validation errors that carry words of ours (see `schemas.fields`)."""

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
    """Every wrong field that pydantic found, in our words, at most `MOST_PROBLEMS`."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return tuple(
        FieldProblem(
            field=".".join(map(str, each["loc"]))[:LONGEST_FIELD] or "body",
            problem=each["msg"] if each["type"] == SENTENCE else _SENTENCES.get(each["type"], "is not valid"),
        )
        for each in found[:MOST_PROBLEMS]
    )
