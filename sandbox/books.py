"""The books of a booking system: times, reservations, meetings, and a log of all changes.

Pure state; the caller passes the time. audit.py checks the log.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sandbox.audit import Entry, disagreements
from sandbox.system_layout import CASEWORKERS, OfferKind, offer_id, slot_time

MAX_ENTRIES = 500_000
STRANGER = "stranger"
CHANGE_NOTICE = timedelta(hours=2)


def citizen_token(cpr: str) -> str:
    """A token that stands for a CPR number in books, calls and scripts; the same for the same number."""
    return "c-" + hashlib.sha256(cpr.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Slot:
    """One time of one caseworker for one offer. Compared by identity."""

    offer: UUID
    jobcenter: str
    caseworker_id: str
    caseworker: str
    starts_at: datetime
    ends_at: datetime
    forms: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """The time that a citizen asks to reserve or create. `offer` is None when an existing meeting is moved."""

    offer: UUID | None
    starts_at: datetime
    form: str
    caseworker_id: str | None = None


@dataclass(frozen=True)
class CallContext:
    """The invitation, citizen, time and x-requestId of one call."""

    invitation: UUID
    citizen: str
    now: datetime
    x_request_id: str


@dataclass
class Meeting:
    """One booked meeting. A deadline is None if rebooking or cancelling is not possible."""

    invitation: UUID
    citizen: str
    slot: Slot
    form: str
    accepted: bool = False
    rebook_by: datetime | None = None
    cancel_by: datetime | None = None


class Refusal(Exception):
    """A fault of docs/contract.md#faults; the argument is its short name, such as `tid-optaget`."""

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault


@dataclass(frozen=True)
class _Reservation:
    citizen: str
    invitation: UUID
    slot: Slot
    until: datetime


def slots_of(jobcenter: str, kind: OfferKind, first_day: date) -> list[Slot]:
    """The calendar of one offer in one jobcenter, by start, then caseworker."""
    offer = offer_id(jobcenter, kind.name)
    people = [
        (f"{jobcenter}-{kind.name}-{n + 1}", CASEWORKERS[n % len(CASEWORKERS)])
        for n in range(kind.caseworkers)
    ]
    return [
        Slot(
            offer,
            jobcenter,
            caseworker_id,
            name,
            at,
            at + timedelta(minutes=30),
            kind.forms[number % len(kind.forms)],
        )
        for day in range(kind.days)
        for number in range(kind.times_a_day)
        for at in [slot_time(first_day, day, number)]
        for caseworker_id, name in people
    ]


class Books:
    """The state of one booking system. Methods raise Refusal with the faults of the contract."""

    def __init__(self, slots: dict[UUID, list[Slot]], reservation_seconds: float) -> None:
        self.slots = slots
        self.meetings: dict[UUID, Meeting] = {}
        self.entries: list[Entry] = []
        self._by_start: dict[tuple[UUID, datetime], list[Slot]] = {}
        for slot in (s for offered in slots.values() for s in offered):
            self._by_start.setdefault((slot.offer, slot.starts_at), []).append(slot)
        self._reservation_time = timedelta(seconds=reservation_seconds)
        self._booked: dict[Slot, UUID] = {}
        self._reserved: dict[Slot, _Reservation] = {}

    def clear(self) -> None:
        """Delete everything but the calendar."""
        for part in (self.meetings, self.entries, self._booked, self._reserved):
            part.clear()

    def times(self, offer: UUID, citizen: str, now: datetime) -> list[Slot]:
        """The times that this citizen can reserve now."""
        if offer not in self.slots:
            raise Refusal("ukendt-moedetilbud")
        return [slot for slot in self.slots[offer] if self._is_free(slot, citizen, now)]

    def find(self, invitation: UUID, citizen: str) -> Meeting:
        """The citizen's meeting. The meeting of another citizen counts as unknown."""
        meeting = self.meetings.get(invitation)
        if meeting is None or meeting.citizen != citizen:
            raise Refusal("ukendt-booking")
        return meeting

    def reserve(self, context: CallContext, wish: Wish) -> datetime:
        """Reserve the wished time; returns when the reservation expires."""
        slot = self._pick(self._offer_of(context, wish), context, wish)
        held = _Reservation(context.citizen, context.invitation, slot, context.now + self._reservation_time)
        self._reserved[slot] = held
        self._write("reserved", context, slot, wish.form)
        return held.until

    def create(self, context: CallContext, wish: Wish) -> Meeting:
        """Book (or, without an offer, move to) the time that this citizen has reserved under this invitation."""
        slot = self._held(self._offer_of(context, wish), context, wish)
        moved = self.meetings.get(context.invitation)
        if moved is not None:
            del self._booked[moved.slot]
        del self._reserved[slot]
        return self._put("moved" if moved else "booked", context, slot, wish.form)

    def accept(self, context: CallContext) -> Meeting:
        """Accept the meeting. A repeat changes nothing but is written to the log."""
        meeting = self.find(context.invitation, context.citizen)
        self._write("accepted", context, meeting.slot, meeting.form)
        meeting.accepted = True
        return meeting

    def cancel(self, context: CallContext) -> None:
        """Remove the meeting and free its time."""
        meeting = self.find(context.invitation, context.citizen)
        if meeting.cancel_by is None or context.now > meeting.cancel_by:
            raise Refusal("aflysning-ikke-mulig")
        self._write("cancelled", context, meeting.slot, meeting.form)
        del self.meetings[context.invitation], self._booked[meeting.slot]

    def seed(self, context: CallContext, wish: Wish) -> Meeting:
        """Insert a meeting that existed before the test. Raises Refusal if its time does not exist or is taken."""
        if wish.offer is None or context.invitation in self.meetings:
            raise Refusal("ugyldig-besked")
        return self._put("seeded", context, self._pick(wish.offer, context, wish), wish.form)

    def snatch(self, context: CallContext, wish: Wish) -> None:
        """Book every time that fits this wish for another citizen."""
        for slot in self._fitting(self._offer_of(context, wish), wish):
            if slot not in self._booked:
                invitation = uuid4()
                stranger = CallContext(invitation, f"{STRANGER}-{invitation}", context.now, "snatch")
                self._put("seeded", stranger, slot, slot.forms[0])

    def _offer_of(self, context: CallContext, wish: Wish) -> UUID:
        if wish.offer is not None:
            return wish.offer
        meeting = self.find(context.invitation, context.citizen)
        if meeting.rebook_by is None or context.now > meeting.rebook_by:
            raise Refusal("ombooking-ikke-mulig")
        return meeting.slot.offer

    def _fitting(self, offer: UUID, wish: Wish) -> list[Slot]:
        if offer not in self.slots:
            raise Refusal("ukendt-moedetilbud")
        at_that_time = self._by_start.get((offer, wish.starts_at), [])
        return [s for s in at_that_time if wish.caseworker_id in (None, s.caseworker_id)]

    def _pick(self, offer: UUID, context: CallContext, wish: Wish) -> Slot:
        fitting = self._fitting(offer, wish)
        if fitting and not any(wish.form in slot.forms for slot in fitting):
            raise Refusal("moedeform-ikke-mulig")
        for slot in fitting:
            if wish.form in slot.forms and self._is_free(slot, context.citizen, context.now):
                return slot
        raise Refusal("tid-optaget")

    def _held(self, offer: UUID, context: CallContext, wish: Wish) -> Slot:
        for slot in self._fitting(offer, wish):
            held = self._reserved.get(slot)
            is_own = held is not None and (held.citizen, held.invitation) == (
                context.citizen,
                context.invitation,
            )
            if held is not None and is_own and context.now < held.until and wish.form in slot.forms:
                return slot
        self._pick(offer, context, wish)  # raises tid-optaget if another citizen has it
        raise Refusal("reservation-udloebet")

    def _is_free(self, slot: Slot, citizen: str, now: datetime) -> bool:
        held = self._reserved.get(slot)
        return slot not in self._booked and (held is None or held.citizen == citizen or held.until <= now)

    def _put(self, change: str, context: CallContext, slot: Slot, form: str) -> Meeting:
        self._write(change, context, slot, form)
        until = slot.starts_at - CHANGE_NOTICE
        meeting = Meeting(context.invitation, context.citizen, slot, form, True, until, until)
        self.meetings[context.invitation] = meeting
        self._booked[slot] = context.invitation
        return meeting

    def _write(self, change: str, context: CallContext, slot: Slot, form: str) -> None:
        if len(self.entries) >= MAX_ENTRIES:
            raise MemoryError(f"the books are full ({MAX_ENTRIES} entries)")
        slot_key = (slot.offer, slot.caseworker_id, slot.starts_at)
        self.entries.append(
            Entry(
                change,
                context.invitation,
                context.citizen,
                *slot_key,
                form,
                context.x_request_id,
                context.now,
            )
        )

    def snapshot(self) -> dict[str, Any]:
        """The meetings, the log and its errors, as JSON values."""
        return {
            "meetings": [_plain_meeting(m) for m in self.meetings.values()],
            "entries": [_plain(asdict(e)) for e in self.entries],
            "disagreements": disagreements(self.entries),
        }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v.isoformat() if isinstance(v, datetime) else str(v) for k, v in values.items()}


def _plain_meeting(meeting: Meeting) -> dict[str, Any]:
    return {
        "invitation": str(meeting.invitation),
        "citizen": meeting.citizen,
        "offer": str(meeting.slot.offer),
        "caseworker_id": meeting.slot.caseworker_id,
        "starts_at": meeting.slot.starts_at.isoformat(),
        "form": meeting.form,
        "accepted": meeting.accepted,
    }
