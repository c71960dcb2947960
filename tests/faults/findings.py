"""What an audit finds, in which sorts, and the last word on a request: shared by the comparisons. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.faults.books import Books
from tests.faults.load import QUERIES, Errand

LOST, TWICE, LATE, LEAKED, UNTRUE = "lost", "duplicated_effects", "late", "leaked", "untrue"
SORTS = (LOST, TWICE, LATE, LEAKED, UNTRUE)
Said = Iterator[tuple[str, str, str | None]]


@dataclass(frozen=True)
class Finding:
    """Something that should not be, about one request (or the whole run), and what explains it, if anything does."""

    sort: str
    about: str
    says: str
    explained: str | None = None
    during: tuple[str, ...] = ()

    def __str__(self) -> str:
        during = f" (during {', '.join(self.during)})" if self.during else ""
        return f"{self.sort}: {self.about}: {self.says}{during}"


def final_answers(errand: Errand, books: Books) -> list[dict[str, Any]]:
    """Different final answers; `uncertain` is a promise, not an answer yet. Queries may differ freely."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for answer in books.answers.get(errand.request_id, []):
        if answer["status"] != "uncertain":
            found.setdefault((answer["status"], answer.get("reason"), answer.get("fejlkode")), answer)
    return list(found.values())


def last_word(errand: Errand, books: Books) -> str | None:
    """The ledger's, else what was told."""
    row = books.requests.get(errand.request_id)
    if row is not None and errand.what not in QUERIES:
        return str(row["status"] if row["state"] == "settled" else row["state"])
    finals = final_answers(errand, books)
    return str(finals[-1]["status"]) if finals else None
