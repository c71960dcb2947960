"""Types for dead letters: a letter, a filter with its SQL, a group, a page and its cursor. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from broker.ledger.audit_log import Refusal

TREND_HOURS = 24


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. `letter_id`: the reportId, a booking's requestId, or the message's own letter id."""

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
    """Selects letters; a field that is None selects all.

    `about`: a request, report or letter id; selects all letters that belong to it.
    """

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
        """Whether it selects every letter."""
        return all(getattr(self, f.name) is None for f in fields(self))

    def refuse_empty(self, action: str) -> None:
        """Raises Refusal for a filter that selects every letter: too easy to do by mistake."""
        if self.empty:
            raise Refusal(f"say which letters to {action}: an id, a group or a filter")

    def where(self, first: int = 1) -> tuple[str, list[Any]]:
        """The SQL condition and its values; placeholders are numbered from `first`."""
        parts, values = ["true"], list[Any]()
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None:
                values.append(list(value) if f.name == "ids" else value)
                parts.append(CONDITIONS.get(f.name, f.name + " = ${}").format(first + len(values) - 1))
        return " AND ".join(parts), values

    def in_words(self) -> str:
        """Text for names of replays and the operators' log: the given fields; of several ids only their number."""
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
    """Letters with the same failure: one fingerprint (supplier, cause, fault) in one queue.

    `trend`: how many letters were last seen in each of the last 24 hours, oldest hour first.
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
    """The end of a page of letters; the next page begins after it. New letters do not shift the pages."""

    at: datetime
    letter_id: UUID

    def __str__(self) -> str:
        return f"{self.at.isoformat()}_{self.letter_id}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Parse what `str` returned. Raises Refusal."""
        try:
            at, _, letter_id = text.partition("_")
            cursor = cls(datetime.fromisoformat(at), UUID(letter_id))
        except ValueError:
            raise Refusal("this is not a cursor of a list of dead letters") from None
        if cursor.at.tzinfo is None:
            raise Refusal("a cursor needs a time with a time zone")
        return cursor


@dataclass(frozen=True, slots=True)
class LetterPage:
    """A page of letters, newest first. `next`: the cursor for the next page; None on the last page."""

    letters: tuple[Letter, ...]
    next: PageCursor | None
