"""Compares the books of a run: what was lost, done twice, answered late, leaked or told wrongly, and what explains it.

Pure. A finding without an explanation by name is a bug of the broker (or of this file).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from broker.handlers.citizen_reports import report_of
from sandbox.books import citizen_token
from tests.faults.books import OURS, Books, leaks
from tests.faults.load import JOBCENTERS, QUERIES, Errand
from tests.faults.matrix import RECOVERY_S
from tests.faults.scene import PATIENCE_S, Window

LOST, TWICE, LATE, LEAKED, UNTRUE = "lost", "duplicated_effects", "late", "leaked", "untrue"
SORTS = (LOST, TWICE, LATE, LEAKED, UNTRUE)
TOLERANCE = timedelta(seconds=2)
"""Between the broker's deadline and the frontend's clock lie a confirmed publish and two busy processors."""
NEAR_A_KILL = timedelta(seconds=3)
FINAL_EFFECTS = {"booked": 1, "moved": 1, "accepted": 1, "cancelled": 1}


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


@dataclass
class Audit:
    """Findings without an explanation, and how often each explanation was needed."""

    findings: list[Finding] = field(default_factory=list)
    explained: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    per_fault: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def count(self, sort: str) -> int:
        """How many findings of this sort nothing explains."""
        return sum(finding.sort == sort for finding in self.findings)


def audit(errands: Iterable[Errand], books: Books) -> Audit:
    """Compare everything with everything."""
    result = Audit()
    errands = list(errands)
    reports = _Reports(books)
    for errand in errands:
        life = _life(errand, books)
        during = tuple(sorted({w.fault.name for w in books.windows if _overlaps(w, *life)}))
        for name in during or ("no fault",):
            result.per_fault[name]["requests"] += 1
        result.outcomes[_last_word(errand, books) or "no word"] += 1
        for finding in _about(errand, books, reports):
            _take(result, Finding(finding.sort, finding.about, finding.says, finding.explained, during))
        for note in _notes(errand, books):
            result.explained[note] += 1
    for finding in (*_of_the_whole(books, reports), *_leaked(books, errands)):
        _take(result, finding)
    return result


def _take(result: Audit, finding: Finding) -> None:
    if finding.explained is not None:
        result.explained[finding.explained] += 1
        return
    result.findings.append(finding)
    for name in finding.during or ("no fault",):
        result.per_fault[name][finding.sort] += 1


def _life(errand: Errand, books: Books) -> tuple[datetime, datetime]:
    """From its sending to its answer; without one, to the end of all faults."""
    sent = errand.sent_at
    assert sent is not None
    end = max([w.ended for w in books.windows if w.ended] + [sent])
    return sent, books.first_answer_at.get(errand.request_id, end)


def _overlaps(window: Window, begin: datetime, end: datetime) -> bool:
    over = (window.ended or end) + timedelta(seconds=RECOVERY_S)
    return window.began <= end and over >= begin


# -- one request ---------------------------------------------------------------------------------------------------


def _told(errand: Errand, books: Books) -> list[dict[str, Any]]:
    """Different final answers; `uncertain` is a promise, not an answer yet. Queries may differ freely."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for answer in books.answers.get(errand.request_id, []):
        if answer["status"] != "uncertain":
            found.setdefault((answer["status"], answer.get("reason"), answer.get("fejlkode")), answer)
    return list(found.values())


def _last_word(errand: Errand, books: Books) -> str | None:
    """The ledger's, else what was told."""
    row = books.requests.get(errand.request_id)
    if row is not None and errand.what not in QUERIES:
        return str(row["status"] if row["state"] == "settled" else row["state"])
    told = _told(errand, books)
    return str(told[-1]["status"]) if told else None


def _about(errand: Errand, books: Books, reports: _Reports) -> Iterator[Finding]:
    for rule in RULES:
        for sort, says, explained in rule(errand, books):
            yield Finding(sort, f"{errand.what} {errand.request_id}", says, explained)
    for sort, says, explained in reports.about(errand):
        yield Finding(sort, f"{errand.what} {errand.request_id}", says, explained)


Said = Iterator[tuple[str, str, str | None]]


def _answered(errand: Errand, books: Books) -> Said:
    answers = books.answers.get(errand.request_id, [])
    if not answers:
        yield LOST, "never answered", None
        return
    told = _told(errand, books)
    if len(told) > 1 and errand.what not in QUERIES:
        clocks = any(w.fault.name == "clock-jump" for w in books.windows)
        invalid = clocks and any(answer.get("reason") == "invalid" for answer in told)
        yield (
            UNTRUE,
            f"told different things: {[answer['status'] for answer in told]}",
            "refused by a worker whose clock was wrong, carried by the other one" if invalid else None,
        )
    row = books.requests.get(errand.request_id)
    if row is None or row["state"] != "settled" or errand.what in QUERIES:
        return
    if len(told) == 1 and told[0]["status"] != row["status"] and told[0].get("reason") != "invalid":
        yield UNTRUE, f"told {told[0]['status']}, and the ledger says {row['status']}", None


def _in_time(errand: Errand, books: Books) -> Said:
    """Late: the first answer came after the citizen's patience, and no fault was on its path meanwhile."""
    sent, answered = _life(errand, books)
    if (
        errand.request_id not in books.first_answer_at
        or answered - sent <= timedelta(seconds=PATIENCE_S) + TOLERANCE
    ):
        return
    meanwhile = [
        w.fault.name
        for w in books.windows
        if w.fault.hits_answer_of(errand.system) and _overlaps(w, sent, answered)
    ]
    waited = (answered - sent).total_seconds()
    because = (
        f"answered after more than {PATIENCE_S:g} s while {meanwhile[0]} was on the path"
        if meanwhile
        else None
    )
    yield LATE, f"answered after {waited:.1f} s", because


def _carried_out(errand: Errand, books: Books) -> Said:
    """The booking systems' books say what the last word says, once."""
    if errand.invitation is None or errand.what in (*QUERIES, "words"):
        return
    last, there = _last_word(errand, books), _effect(errand, books)
    if last == "unverified":
        yield UNTRUE, "nobody could tell", "left to a person as a dead letter (unverified)"
    elif there and last != "done":
        yield UNTRUE, f"it was carried out, and the last word is {last}", None
    elif not there and last == "done":
        yield LOST, "the last word is done, and it is not in the booking system's books", None
    times = Counter(entry.what for entry in books.entries.get(errand.invitation, []))
    for what, most in FINAL_EFFECTS.items():
        if times[what] > most:
            yield TWICE, f"{what} {times[what]} times", None


def _effect(errand: Errand, books: Books) -> bool:
    assert errand.invitation is not None
    did = {entry.what for entry in books.entries.get(errand.invitation, [])}
    return {"rebook": "moved", "accept": "accepted", "cancel": "cancelled"}.get(errand.what, "booked") in did


def _announced(errand: Errand, books: Books) -> Said:
    """An outcome event says the last word. What could not be read has none with an id."""
    last = _last_word(errand, books)
    answers = books.answers.get(errand.request_id, [])
    if last is None or all(answer.get("reason") == "invalid" for answer in answers):
        return
    outcomes = {event["outcome"] for event in books.events.get(errand.request_id, [])}
    if last not in outcomes and errand.what not in QUERIES:
        yield LOST, f"no outcome event says {last} (there are: {sorted(outcomes)})", None
    elif not outcomes:
        yield LOST, "no outcome event", None


RULES: tuple[Callable[[Errand, Books], Said], ...] = (_answered, _in_time, _carried_out, _announced)


def _notes(errand: Errand, books: Books) -> Iterator[str]:
    """What happened to a request that a person may ask about, by name."""
    statuses = [answer["status"] for answer in books.answers.get(errand.request_id, [])]
    last = _last_word(errand, books)
    if "uncertain" in statuses:
        yield f"answered uncertain, corrected to {last}"
    if last == "expired":
        yield "told expired, nothing was called"
    reasons = {answer.get("reason") for answer in books.answers.get(errand.request_id, [])}
    if "invalid" in reasons and errand.what != "refused":
        yield "refused by a worker whose clock was wrong (sentAt lay in its future)"
    if books.causes.get(errand.request_id, set()) & OURS and last == "failed":
        yield "told failed by our own limits, nothing was booked, no supplier told"


# -- reports -------------------------------------------------------------------------------------------------------


class _Reports:
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
        last = _last_word(errand, self._books)
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


# -- the whole run -------------------------------------------------------------------------------------------------


def _of_the_whole(books: Books, reports: _Reports) -> Iterator[Finding]:
    yield from reports.of_the_whole()
    yield from (Finding(TWICE, "the outside's books", what) for what in books.disagreements)
    yield from (Finding(UNTRUE, "the contract", what) for what in books.breaches)
    yield from (Finding(LOST, "conservation", what) for what in books.gaps)
    yield from (Finding(LOST, "still under way at the end", what) for what in books.stuck)
    for queue, count in books.left_in_queues.items():
        if count and not queue.endswith(".dead"):
            yield Finding(LOST, queue, f"{count} messages left at the end")
        elif count:
            yield Finding(LOST, queue, f"{count} dead letters", f"{count} dead letters in {queue}")


def _leaked(books: Books, errands: list[Errand]) -> Iterator[Finding]:
    yield from (Finding(LEAKED, "privacy", what) for what in leaks(books, errands))
