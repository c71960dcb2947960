"""Responses of the Planner and the booking systems, and the body sent to them (docs/contract.md#calls).

The fields that the contract requires are checked, unknown fields are ignored. The CPR number is not here: it is
sent in a header.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, ValidationError

from schemas.codes import Fault, MeetingForm
from schemas.fields import CaseworkerId, Flag, Forms, Guid, Instant, Whole
from schemas.wire import Wire

MOST_OFFERS = 1000
FIRST_YEAR = 1900
MOST_TIMES = 10_000


def _set(moment: datetime | None) -> datetime | None:
    return None if moment is not None and moment.year < FIRST_YEAR else moment


Deadline = Annotated[Instant | None, AfterValidator(_set)]
"""An instant, or None. The first day of a calendar (year 1, 1899) is what an unset date looks like: None."""


class Caseworker(Wire):
    """A sagsbehandler."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=255)] = Field(
        title="Caseworker id",
        description="Id of the caseworker; send it as sagsbehandlerId in later requests.",
    )
    name: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(
        alias="navn", title="Name", description="Name of the caseworker, to show the citizen."
    )


class Offer(Wire):
    """A mødetilbud: a meeting that the citizen may book."""

    offer_id: Guid = Field(
        alias="moedetilbudId",
        title="Offer id",
        description="Id of the offer; send it in the requests that follow.",
    )
    conversation_type: Whole = Field(
        alias="samtaletype", title="Type of conversation", description="Id of the samtaletype."
    )
    group_type: Whole = Field(
        alias="moedeGruppeType",
        title="Group type",
        description="Id of the moedeGruppeType: a joint or an individual meeting.",
    )
    forms: Forms = Field(
        alias="moedeformer",
        title="Forms of meeting",
        description="The mødeformer that the citizen can choose from.",
    )
    location: Annotated[str, StringConstraints(max_length=1000)] | None = Field(
        default=None, alias="lokation", title="Location", description="Place of the meeting."
    )


class Offers(Wire):
    """The Planner's response: all mødetilbud of a citizen; the list may be empty."""

    offers: tuple[Offer, ...] = Field(alias="moedetilbud", max_length=MOST_OFFERS)


class MeetingTime(Wire):
    """A time of an offer: start, end and caseworker, with the mødeformer it has (R2)."""

    starts_at: Instant = Field(alias="starttidspunkt")
    ends_at: Instant = Field(alias="sluttidspunkt")
    caseworker: Caseworker = Field(alias="sagsbehandler")
    forms: Forms = Field(alias="moedeformer")


class Times(Wire):
    """The booking system's response: the times of an offer, in no fixed order; the list may be empty."""

    times: tuple[MeetingTime, ...] = Field(alias="tider", max_length=MOST_TIMES)


class Reservation(Wire):
    """A reserved time. It is not released; it lapses."""

    reserved_until: Instant = Field(alias="reserveretTil")


class Booking(Wire):
    """A booked meeting as the booking system returned it."""

    invitation_id: Guid = Field(
        alias="indkaldelseId", title="Invitation id", description="Id of the meeting."
    )
    offer_id: Guid | None = Field(
        default=None,
        alias="moedetilbudId",
        title="Offer id",
        description="The mødetilbud that the meeting was booked from.",
    )
    starts_at: Instant = Field(
        alias="starttidspunkt", title="Start", description="Start of the meeting, with offset."
    )
    ends_at: Instant = Field(
        alias="sluttidspunkt", title="End", description="End of the meeting, with offset."
    )
    form: MeetingForm = Field(
        alias="moedeform", title="Form of meeting", description="How the meeting is held."
    )
    caseworker: Caseworker = Field(
        alias="sagsbehandler", title="Caseworker", description="The caseworker whom the citizen will meet."
    )
    accepted: Flag = Field(
        alias="accepteret", title="Accepted", description="Whether the citizen has accepted the meeting."
    )
    can_rebook: Flag = Field(
        alias="kanOmbookes", title="Can be moved", description="Whether the citizen may move the meeting."
    )
    rebook_by: Deadline = Field(
        default=None,
        alias="ombookingsfrist",
        title="Move by",
        description="The latest time at which the meeting may be moved.",
    )
    can_cancel: Flag = Field(
        alias="kanAflyses",
        title="Can be cancelled",
        description="Whether the citizen may cancel the meeting.",
    )
    cancel_by: Deadline = Field(
        default=None,
        alias="aflysningsfrist",
        title="Cancel by",
        description="The latest time at which the meeting may be cancelled.",
    )


class Problem(Wire):
    """A fault as problem+json (RFC 9457). Only the type and the status are ever stored."""

    type: str = "about:blank"
    title: str | None = Field(default=None, repr=False)
    status: Whole | None = None

    @property
    def fault(self) -> Fault | None:
        """The fault of the contract, or None for a type that is not on the closed list."""
        return Fault(self.type) if self.type in set(Fault) else None


class Wish(Wire):
    """The body of the calls reserve and create: the meeting as the citizen wants it."""

    offer_id: Guid | None = Field(default=None, alias="moedetilbudId")
    starts_at: Instant = Field(alias="starttidspunkt")
    form: MeetingForm = Field(alias="moedeform")
    caseworker_id: CaseworkerId | None = Field(default=None, alias="sagsbehandlerId")


M = TypeVar("M", bound=BaseModel)

_PARTS: Final[dict[str, type[BaseModel]]] = {
    "moedetilbud": Offer,
    "tider": MeetingTime,
    "sagsbehandler": Caseworker,
}
# An entry of a list may become unreadable when its own parts are left out: two levels of lists, and one to spare.
_ROUNDS: Final = 3


def read_answer(model: type[M], body: bytes) -> tuple[M, tuple[str, ...]]:
    """The answer in `body` (a UTF-8 BOM is skipped), and the paths of what was left out of it as unreadable.

    An optional field is left out, and an entry of a list, unless it leaves the list empty: an answer without any
    readable entry does not say that there is none. Raises ValidationError.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        return model.model_validate_json(body), ()
    except ValidationError as error:
        unreadable = error
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise unreadable from None
    left_out: list[str] = []
    for _ in range(_ROUNDS):
        errors = unreadable.errors(include_url=False, include_context=False, include_input=False)
        paths = {_removable(model, error["loc"]) for error in errors}
        if None in paths:
            raise unreadable
        _leave_out(content, (path for path in paths if path is not None))
        left_out += sorted(".".join(map(str, path)) for path in paths if path is not None)
        if any(content.get(path[0]) == [] for path in paths if path is not None):
            raise unreadable
        try:
            return model.model_validate_json(json.dumps(content)), tuple(left_out)
        except ValidationError as error:
            unreadable = error
    raise unreadable


def _removable(model: type[BaseModel] | None, place: tuple[int | str, ...]) -> tuple[int | str, ...] | None:
    """The path of the smallest part around `place` that may be left out, or None."""
    found = None
    for depth, name in enumerate(place, 1):
        if isinstance(name, int):
            found = place[:depth]
            continue
        fields = model.model_fields.items() if model is not None else ()
        if any((field.alias or own) == name and not field.is_required() for own, field in fields):
            found = place[:depth]
        model = _PARTS.get(name)
    return found


def _leave_out(content: Any, paths: Iterable[tuple[int | str, ...]]) -> None:
    # The last entry of a list first, so that the other indexes stay true; longer paths before the parts around them.
    for path in sorted(
        paths, key=lambda path: (len(path), path[-1] if isinstance(path[-1], int) else 0), reverse=True
    ):
        part = content
        for name in path[:-1]:
            part = part[name]
        del part[path[-1]]
