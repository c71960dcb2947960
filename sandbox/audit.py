"""Judges the log of a booking system's books: what may never have happened, each in a sentence. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True)
class Entry:
    """One line of the books: what was done, for whom, by which x-requestId, when."""

    what: str  # booked, moved, accepted, cancelled, seeded, reserved
    invitation: UUID
    citizen: str
    offer: UUID
    caseworker_id: str
    starts_at: datetime
    form: str
    x_request_id: str
    at: datetime


def disagreements(entries: Iterable[Entry]) -> list[str]:
    """What may never be in any books, each in a sentence; empty when all is well.

    Two citizens in one time, one invitation created twice, one citizen's same wish (offer, start and form)
    booked twice, the same move made twice.
    """
    live: dict[UUID, Entry] = {}
    holders: dict[tuple[Any, ...], UUID] = {}
    wrong: list[str] = []
    for entry in entries:
        if entry.what not in ("booked", "moved", "seeded", "cancelled"):
            continue
        before = live.pop(entry.invitation, None)
        if before is not None:
            wrong += _repeated(before, entry)
            for key in (_slot(before), _wish(before)):
                holders.pop(key, None)
        if entry.what != "cancelled":
            live[entry.invitation] = entry
            wrong += _held_by_others(entry, holders)
    return wrong


def _repeated(before: Entry, new: Entry) -> list[str]:
    if new.what in ("booked", "seeded"):
        return [f"{new.invitation} was {new.what} although it was there already"]
    if new.what == before.what == "moved" and _slot(before) == _slot(new) and _wish(before) == _wish(new):
        return [f"{new.invitation} was moved twice to the same time"]
    return []


def _held_by_others(new: Entry, holders: dict[tuple[Any, ...], UUID]) -> list[str]:
    wrong = []
    claims = ((_slot(new), "the same time of the same caseworker"), (_wish(new), "one citizen's same wish"))
    for key, what in claims:
        if key in holders:
            wrong.append(f"{holders[key]} and {new.invitation} are both booked for {what}")
        holders[key] = new.invitation
    return wrong


def _slot(entry: Entry) -> tuple[Any, ...]:
    return "slot", entry.offer, entry.caseworker_id, entry.starts_at


def _wish(entry: Entry) -> tuple[Any, ...]:
    return "wish", entry.citizen, entry.offer, entry.starts_at, entry.form
