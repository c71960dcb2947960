"""Dead letters in words: one letter, which ones are meant, groups of them, a place in their list.

Plain frozen data and the SQL of a filter; no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from broker.ledger.audit_log import Refusal

TREND_HOURS = 24


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. `letter_id` is the reportId, the requestId of a booking, or a message's own."""

    letter_id: UUID
    kind: str
    queue: str
    cause: str
    cause_class: str
    fingerprint: str
    fault: str | None
    supplier: str
    jobcenter_code: str | None
    type: str | None
    error_code: int | None
    attempts: int
    first_seen_at: datetime
    last_seen_at: datetime


COLUMNS = ", ".join(f.name for f in fields(Letter))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; None means any. `ids` narrows it to those, `about` to a letter, report or request's."""

    queue: str | None = None
    kind: str | None = None
    supplier: str | None = None
    cause: str | None = None
    cause_class: str | None = None
    fingerprint: str | None = None
    fault: str | None = None
    jobcenter_code: str | None = None
    type: str | None = None
    error_code: int | None = None
    before: datetime | None = None
    after: datetime | None = None
    about: UUID | None = None
    ids: tuple[UUID, ...] | None = None

    @property
    def empty(self) -> bool:
        """Whether it means every letter there is."""
        return all(getattr(self, f.name) is None for f in fields(self))

    def where(self, first: int = 1) -> tuple[str, list[Any]]:
        """SQL and its values; placeholders count from `first`."""
        parts, values = ["true"], list[Any]()
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None:
                values.append(list(value) if f.name == "ids" else value)
                parts.append(CONDITIONS.get(f.name, f.name + " = ${}").format(first + len(values) - 1))
        return " AND ".join(parts), values

    def in_words(self) -> str:
        """For names of replays and the operators' log: which fields, and how many ids."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if self.ids is not None:
            given["ids"] = self.ids[0] if len(self.ids) == 1 else len(self.ids)
        return ", ".join(f"{name} {value}" for name, value in given.items()) or "everything"


CONDITIONS = {
    "ids": "letter_id = ANY(${}::uuid[])",
    "about": """letter_id IN (
        SELECT ${0}::uuid
        UNION SELECT report_id FROM reports WHERE request_id = ${0}
        UNION SELECT report_id FROM reports WHERE joins = ${0}
        UNION SELECT m.letter_id FROM dead_messages AS m WHERE m.request_id = ${0})""",
    "before": "last_seen_at < ${}::timestamptz",
    "after": "last_seen_at >= ${}::timestamptz",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Letters that failed in the same way: one fingerprint (supplier, cause, fault) in one queue.

    `trend`: how many of them were last seen in each of the last 24 hours, oldest first; the last one is this hour.
    """

    fingerprint: str
    queue: str
    kind: str
    cause: str
    cause_class: str
    fault: str | None
    supplier: str
    count: int
    first_seen_at: datetime
    last_seen_at: datetime
    trend: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PageCursor:
    """Where a page of letters ended; the next one begins behind it, whatever has died since."""

    at: datetime
    letter_id: UUID

    def __str__(self) -> str:
        return f"{self.at.isoformat()}_{self.letter_id}"

    @classmethod
    def read(cls, text: str) -> Self:
        """What `str` gave. Raises Refusal."""
        try:
            at, _, letter_id = text.partition("_")
            place = cls(datetime.fromisoformat(at), UUID(letter_id))
        except ValueError:
            raise Refusal("this is no place in a list of dead letters") from None
        if place.at.tzinfo is None:
            raise Refusal("a place in a list has a time with its zone")
        return place


@dataclass(frozen=True, slots=True)
class LetterPage:
    """Some letters, newest first, and where the next page begins; None on the last one."""

    letters: tuple[Letter, ...]
    next: PageCursor | None
