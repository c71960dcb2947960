"""The suppliers' inboxes beside the ledger's reports: none lost, none twice without a reason. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

from sandbox.books import citizen_token
from schemas.ids import report_of
from tests.faults.books import OURS, Books
from tests.faults.findings import LOST, TWICE, Finding, Said, last_word
from tests.faults.load import JOBCENTERS, QUERIES, Errand

NEAR_A_KILL = timedelta(seconds=3)


class Reports:
    """The ledger's reports beside the suppliers' inboxes."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._rows = {str(row["report_id"]): row for row in books.reports}
        self._due: Counter[tuple[str, str]] = Counter()
        self._inbox: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for name, received in books.inbox.items():
            for report in received:
                self._inbox[name, report["citizen"]].append(report)

    def about(self, errand: Errand) -> Said:
        """A failure that is the outside's, or a citizen's words, is one report at its supplier."""
        report_id = str(report_of(UUID(errand.request_id)))
        row = self._rows.get(report_id)
        last = last_word(errand, self._books)
        promised = last == ("done" if errand.what == "words" else "failed")
        if row is None:
            if promised and errand.what not in QUERIES and not self._merged(errand):
                yield LOST, "a report was promised, and there is none", self._why_none(errand)
            return
        supplier = f"supplier-{JOBCENTERS.index(errand.jobcenter) + 1}"
        self._due[supplier, citizen_token(str(errand.body["cpr"]))] += row["state"] == "delivered"
        if row["state"] in ("dead", "discarded"):
            yield LOST, f"its report is {row['state']}", f"its report is a dead letter ({row['cause']})"
        elif row["state"] != "delivered":
            yield LOST, f"its report is {row['state']} for ever", None

    def _merged(self, errand: Errand) -> bool:
        row = self._books.requests.get(errand.request_id)
        return row is not None and row["report_id"] is not None

    def _why_none(self, errand: Errand) -> str | None:
        if self._books.causes.get(errand.request_id, set()) & OURS:
            return "no report: what our own limits refused is not a supplier's failure"
        row = self._books.requests.get(errand.request_id)
        settled = row["settled_at"] if row else None
        near = any(settled and abs(settled - at) <= NEAR_A_KILL for at in self._books.killed_at)
        if near and errand.what not in ("words", "rejected", "swallowed"):
            return "no report, and its worker died before it logged why (our own limits, or the outside)"
        return None

    def of_the_whole(self) -> Iterator[Finding]:
        """Suppliers' books against the ledger's: as many, and each once."""
        for key in {*self._due, *self._inbox}:
            got, due = len(self._inbox[key]), self._due[key]
            where = f"reports at {key[0]} about {key[1]}"
            if got < due:
                yield Finding(LOST, where, f"{due} delivered says the ledger, {got} are in the inbox")
            elif got > due:
                dead = self._dead_after_unanswered(key)
                why = "a dead report that its supplier has: its last attempts were not answered"
                yield Finding(TWICE, where, f"{got} in the inbox, {due} delivered", why if dead else None)
            for report in self._inbox[key]:
                if report["times"] > 1:
                    yield Finding(TWICE, where, f"taken in {report['times']} times", _repeat(report))

    def _dead_after_unanswered(self, key: tuple[str, str]) -> bool:
        return any(row["state"] == "dead" and row["supplier"] == key[0] for row in self._rows.values())


def _repeat(report: dict[str, Any]) -> str | None:
    """A webhook is delivered at least once: the same id again, as long as nobody had answered us."""
    ids = {arrival["xRequestId"] for arrival in report["arrivals"]}
    if report["reportId"] and len(ids) == 1:
        return "a webhook came again under its own webhook-id after an attempt whose answer never reached us"
    return None
