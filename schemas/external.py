"""What the Planner and booking systems say, and the wish we send them (DESIGN 4).

Strict about what the contract requires, blind to what it does not know. No CPR number is in here: it
travels in a header.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from schemas.codes import Fault, MeetingForm
from schemas.fields import CaseworkerId, Flag, Forms, Guid, Instant, Whole
from schemas.wire import Wire

MOST_OFFERS = 1000
MOST_TIMES = 10_000


class Caseworker(Wire):
    """A sagsbehandler."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=255)] = Field(
        title="Caseworker id", description="Names the caseworker in further requests."
    )
    name: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(
        alias="navn", title="Name", description="The caseworker's name, for the citizen to read."
    )


class Offer(Wire):
    """A mødetilbud: a meeting that the citizen may book."""

    offer_id: Guid = Field(
        alias="moedetilbudId", title="Offer id", description="Reuse it in the calls that follow."
    )
    conversation_type: Whole = Field(
        alias="samtaletype", title="Type of conversation", description="Id of the samtaletype."
    )
    group_type: Whole = Field(
        alias="moedeGruppeType",
        title="Group type",
        description="Id of the moedeGruppeType: joint or individual.",
    )
    forms: Forms = Field(
        alias="moedeformer",
        title="Forms of meeting",
        description="The mødeformer that can be chosen.",
    )
    location: Annotated[str, StringConstraints(max_length=1000)] | None = Field(
        default=None, alias="lokation", title="Location", description="Where the meeting is held."
    )


class Offers(Wire):
    """The Planner's answer: all mødetilbud of a citizen, perhaps none."""

    offers: tuple[Offer, ...] = Field(alias="moedetilbud", max_length=MOST_OFFERS)


class MeetingTime(Wire):
    """A time of an offer: a start and a caseworker, with the mødeformer it has (rule 2)."""

    starts_at: Instant = Field(alias="starttidspunkt")
    ends_at: Instant = Field(alias="sluttidspunkt")
    caseworker: Caseworker = Field(alias="sagsbehandler")
    forms: Forms = Field(alias="moedeformer")


class Times(Wire):
    """The booking system's answer: the times of an offer, in its own order, perhaps none."""

    times: tuple[MeetingTime, ...] = Field(alias="tider", max_length=MOST_TIMES)


class Reservation(Wire):
    """A held time; nobody has to release it, it lapses."""

    reserved_until: Instant = Field(alias="reserveretTil")


class Booking(Wire):
    """A booked meeting as the booking system has it."""

    invitation_id: Guid = Field(alias="indkaldelseId", title="Invitation id", description="The meeting's id.")
    offer_id: Guid | None = Field(
        default=None,
        alias="moedetilbudId",
        title="Offer id",
        description="The mødetilbud it was booked from.",
    )
    starts_at: Instant = Field(alias="starttidspunkt", title="Start", description="When the meeting starts.")
    ends_at: Instant = Field(alias="sluttidspunkt", title="End", description="When the meeting ends.")
    form: MeetingForm = Field(
        alias="moedeform", title="Form of meeting", description="How the meeting is held."
    )
    caseworker: Caseworker = Field(
        alias="sagsbehandler", title="Caseworker", description="Whom the citizen meets."
    )
    accepted: Flag = Field(
        alias="accepteret", title="Accepted", description="Whether the citizen has accepted it."
    )
    can_rebook: Flag = Field(
        alias="kanOmbookes", title="Can be moved", description="Whether the citizen may move it."
    )
    rebook_by: Instant | None = Field(
        default=None, alias="ombookingsfrist", title="Move by", description="Until when it may be moved."
    )
    can_cancel: Flag = Field(
        alias="kanAflyses", title="Can be cancelled", description="Whether the citizen may cancel it."
    )
    cancel_by: Instant | None = Field(
        default=None,
        alias="aflysningsfrist",
        title="Cancel by",
        description="Until when it may be cancelled.",
    )


class Problem(Wire):
    """A fault as problem+json (RFC 9457). Of all it says only the type and the status are ever kept."""

    type: str = "about:blank"
    title: str | None = Field(default=None, repr=False)
    status: Whole | None = None

    @property
    def fault(self) -> Fault | None:
        """The contract's fault that it names, or None for a type that is not on the closed list."""
        return Fault(self.type) if self.type in set(Fault) else None


class Wish(Wire):
    """The body of reserve and create: the meeting as the citizen wants it."""

    offer_id: Guid | None = Field(default=None, alias="moedetilbudId")
    starts_at: Instant = Field(alias="starttidspunkt")
    form: MeetingForm = Field(alias="moedeform")
    caseworker_id: CaseworkerId | None = Field(default=None, alias="sagsbehandlerId")

    def to_wire(self) -> dict[str, Any]:
        """This wish as a JSON object; what is not wished for is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
