"""A booking system's books: times, reservations, meetings, and a log of all that was ever done with them.

Pure state with the clock passed in; no HTTP. What the log may not say is judged in audit.py.
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
    """How books, calls and scripts name a citizen: the same for the same CPR number, and not the number."""
    return "c-" + hashlib.sha256(cpr.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Slot:
    """One time of one caseworker for one offer; `forms` in the system's own order. Equal to itself only."""

    offer: UUID
    jobcenter: str
    caseworker_id: str
    caseworker: str
    starts_at: datetime
    ends_at: datetime
    forms: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """What a citizen asks to reserve or create. `offer` is None for a move of an existing meeting."""

    offer: UUID | None
    starts_at: datetime
    form: str
    caseworker_id: str | None = None


@dataclass(frozen=True)
class CallContext:
    """Whose invitation it is about, when, and by which call."""

    invitation: UUID
    citizen: str
    now: datetime
    x_request_id: str


@dataclass
class Meeting:
    """One booked meeting. A deadline is there exactly when the thing is possible."""

    invitation: UUID
    citizen: str
    slot: Slot
    form: str
    accepted: bool = False
    rebook_by: datetime | None = None
    cancel_by: datetime | None = None


class Refusal(Exception):
    """A fault of the contract's list; the argument is its short name, such as `tid-optaget`."""

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
            offer, jobcenter, who, name, at, at + timedelta(minutes=30), kind.forms[number % len(kind.forms)]
        )
        for day in range(kind.days)
        for number in range(kind.times_a_day)
        for at in [slot_time(first_day, day, number)]
        for who, name in people
    ]


class Books:
    """What one booking system knows. Methods raise Refusal as the contract says."""

    def __init__(self, slots: dict[UUID, list[Slot]], reservation_seconds: float) -> None:
        self.slots = slots
        self.meetings: dict[UUID, Meeting] = {}
        self.entries: list[Entry] = []
        self._by_start: dict[tuple[UUID, datetime], list[Slot]] = {}
        for slot in (s for offered in slots.values() for s in offered):
            self._by_start.setdefault((slot.offer, slot.starts_at), []).append(slot)
        self._lasts = timedelta(seconds=reservation_seconds)
        self._booked: dict[Slot, UUID] = {}
        self._reserved: dict[Slot, _Reservation] = {}

    def clear(self) -> None:
        """Forget everything but the calendar."""
        for held in (self.meetings, self.entries, self._booked, self._reserved):
            held.clear()

    def times(self, offer: UUID, citizen: str, now: datetime) -> list[Slot]:
        """The times that this citizen could have now."""
        if offer not in self.slots:
            raise Refusal("ukendt-moedetilbud")
        return [slot for slot in self.slots[offer] if self._is_free(slot, citizen, now)]

    def find(self, invitation: UUID, citizen: str) -> Meeting:
        """The citizen's meeting; somebody else's is as unknown as none."""
        meeting = self.meetings.get(invitation)
        if meeting is None or meeting.citizen != citizen:
            raise Refusal("ukendt-booking")
        return meeting

    def reserve(self, who: CallContext, wish: Wish) -> datetime:
        """Hold the wished time for a while; returns until when."""
        slot = self._pick(self._offer_of(who, wish), who, wish)
        held = _Reservation(who.citizen, who.invitation, slot, who.now + self._lasts)
        self._reserved[slot] = held
        self._write("reserved", who, slot, wish.form)
        return held.until

    def create(self, who: CallContext, wish: Wish) -> Meeting:
        """Book (or, without an offer, move) what this citizen has reserved under this invitation."""
        slot = self._held(self._offer_of(who, wish), who, wish)
        moved = self.meetings.get(who.invitation)
        if moved is not None:
            del self._booked[moved.slot]
        del self._reserved[slot]
        return self._put("moved" if moved else "booked", who, slot, wish.form)

    def accept(self, who: CallContext) -> Meeting:
        """Note that the citizen accepts the meeting; doing it again changes nothing but is written down."""
        meeting = self.find(who.invitation, who.citizen)
        self._write("accepted", who, meeting.slot, meeting.form)
        meeting.accepted = True
        return meeting

    def cancel(self, who: CallContext) -> None:
        """Remove the meeting and free its time."""
        meeting = self.find(who.invitation, who.citizen)
        if meeting.cancel_by is None or who.now > meeting.cancel_by:
            raise Refusal("aflysning-ikke-mulig")
        self._write("cancelled", who, meeting.slot, meeting.form)
        del self.meetings[who.invitation], self._booked[meeting.slot]

    def seed(self, who: CallContext, wish: Wish) -> Meeting:
        """A meeting that was there before. Raises Refusal if its time does not exist or is taken."""
        if wish.offer is None or who.invitation in self.meetings:
            raise Refusal("ugyldig-besked")
        return self._put("seeded", who, self._pick(wish.offer, who, wish), wish.form)

    def snatch(self, who: CallContext, wish: Wish) -> None:
        """Somebody else takes every time that would fit this wish, just now."""
        for slot in self._fitting(self._offer_of(who, wish), wish):
            if slot not in self._booked:
                theirs = uuid4()
                stranger = CallContext(theirs, f"{STRANGER}-{theirs}", who.now, "snatch")
                self._put("seeded", stranger, slot, slot.forms[0])

    def _offer_of(self, who: CallContext, wish: Wish) -> UUID:
        if wish.offer is not None:
            return wish.offer
        meeting = self.find(who.invitation, who.citizen)
        if meeting.rebook_by is None or who.now > meeting.rebook_by:
            raise Refusal("ombooking-ikke-mulig")
        return meeting.slot.offer

    def _fitting(self, offer: UUID, wish: Wish) -> list[Slot]:
        if offer not in self.slots:
            raise Refusal("ukendt-moedetilbud")
        at_that_time = self._by_start.get((offer, wish.starts_at), [])
        return [s for s in at_that_time if wish.caseworker_id in (None, s.caseworker_id)]

    def _pick(self, offer: UUID, who: CallContext, wish: Wish) -> Slot:
        fitting = self._fitting(offer, wish)
        if fitting and not any(wish.form in slot.forms for slot in fitting):
            raise Refusal("moedeform-ikke-mulig")
        for slot in fitting:
            if wish.form in slot.forms and self._is_free(slot, who.citizen, who.now):
                return slot
        raise Refusal("tid-optaget")

    def _held(self, offer: UUID, who: CallContext, wish: Wish) -> Slot:
        for slot in self._fitting(offer, wish):
            held = self._reserved.get(slot)
            mine = held is not None and (held.citizen, held.invitation) == (who.citizen, who.invitation)
            if held is not None and mine and who.now < held.until and wish.form in slot.forms:
                return slot
        self._pick(offer, who, wish)  # gone to somebody else, or still free: two different faults
        raise Refusal("reservation-udloebet")

    def _is_free(self, slot: Slot, citizen: str, now: datetime) -> bool:
        held = self._reserved.get(slot)
        return slot not in self._booked and (held is None or held.citizen == citizen or held.until <= now)

    def _put(self, what: str, who: CallContext, slot: Slot, form: str) -> Meeting:
        self._write(what, who, slot, form)
        until = slot.starts_at - CHANGE_NOTICE
        meeting = Meeting(who.invitation, who.citizen, slot, form, True, until, until)
        self.meetings[who.invitation] = meeting
        self._booked[slot] = who.invitation
        return meeting

    def _write(self, what: str, who: CallContext, slot: Slot, form: str) -> None:
        if len(self.entries) >= MAX_ENTRIES:
            raise MemoryError(f"the books are full ({MAX_ENTRIES} entries)")
        where = (slot.offer, slot.caseworker_id, slot.starts_at)
        self.entries.append(Entry(what, who.invitation, who.citizen, *where, form, who.x_request_id, who.now))

    def snapshot(self) -> dict[str, Any]:
        """Everything that was done and what is booked now, as JSON can say it."""
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
