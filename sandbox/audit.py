"""Checks the log of a booking system for what must never happen, such as double bookings. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True)
class Entry:
    """One entry of the log: what was done, for which citizen, by which x-requestId, when."""

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
    """A sentence for each error in the log; empty if there is none.

    Errors are: two citizens in one time, one invitation created twice, the same wish of one citizen (offer, start and
    form) booked twice, the same move made twice.
    """
    current: dict[UUID, Entry] = {}
    holders: dict[tuple[Any, ...], UUID] = {}
    errors: list[str] = []
    for entry in entries:
        if entry.what not in ("booked", "moved", "seeded", "cancelled"):
            continue
        before = current.pop(entry.invitation, None)
        if before is not None:
            errors += _repeated(before, entry)
            for key in (_slot(before), _wish(before)):
                holders.pop(key, None)
        if entry.what != "cancelled":
            current[entry.invitation] = entry
            errors += _conflicts(entry, holders)
    return errors


def _repeated(before: Entry, new: Entry) -> list[str]:
    if new.what in ("booked", "seeded"):
        return [f"{new.invitation} was {new.what} although it already existed"]
    if new.what == before.what == "moved" and _slot(before) == _slot(new) and _wish(before) == _wish(new):
        return [f"{new.invitation} was moved twice to the same time"]
    return []


def _conflicts(new: Entry, holders: dict[tuple[Any, ...], UUID]) -> list[str]:
    errors = []
    claims = ((_slot(new), "the same time of the same caseworker"), (_wish(new), "one citizen's same wish"))
    for key, what in claims:
        if key in holders:
            errors.append(f"{holders[key]} and {new.invitation} are both booked for {what}")
        holders[key] = new.invitation
    return errors


def _slot(entry: Entry) -> tuple[Any, ...]:
    return "slot", entry.offer, entry.caseworker_id, entry.starts_at


def _wish(entry: Entry) -> tuple[Any, ...]:
    return "wish", entry.citizen, entry.offer, entry.starts_at, entry.form
