"""Compares the books of a run: what was lost, done twice, answered late, leaked or told wrongly, and what explains it.

Pure. A finding without an explanation by name is a bug of the broker (or of this file).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from tests.faults.books import NOT_TOLD, OURS, Books, leaks
from tests.faults.findings import LATE, LEAKED, LOST, TWICE, UNTRUE, Finding, Said, final_answers, last_word
from tests.faults.inboxes import Reports
from tests.faults.load import QUERIES, Errand
from tests.faults.matrix import RECOVERY_S
from tests.faults.run_context import PATIENCE_S, Window

TOLERANCE = timedelta(seconds=2)
"""Between the broker's deadline and the frontend's clock lie a confirmed publish and two busy processors."""
NO_FAULT, WHOLE_RUN = "no fault near", "the run as a whole"
FINAL_EFFECTS = {"booked": 1, "moved": 1, "accepted": 1, "cancelled": 1}


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
    reports = Reports(books)
    for errand in errands:
        life = _life(errand, books)
        during = tuple(sorted({w.fault.name for w in books.windows if _overlaps(w, *life)}))
        for name in during or (NO_FAULT,):
            result.per_fault[name]["requests"] += 1
        result.outcomes[last_word(errand, books) or "no word"] += 1
        for finding in _about(errand, books, reports):
            _take(result, Finding(finding.sort, finding.about, finding.says, finding.explained, during))
        for note in _notes(errand, books):
            result.explained[note] += 1
    for finding in (*_of_the_whole(books, reports), *_leaked(books, errands)):
        _take(result, replace(finding, during=(WHOLE_RUN,)))
    return result


def _take(result: Audit, finding: Finding) -> None:
    if finding.explained is not None:
        result.explained[finding.explained] += 1
        return
    result.findings.append(finding)
    for name in finding.during or (NO_FAULT,):
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


def _about(errand: Errand, books: Books, reports: Reports) -> Iterator[Finding]:
    if not errand.taken and errand.request_id not in books.answers:
        yield Finding(
            LOST, errand.request_id, "never taken", "RabbitMQ never confirmed it, and the frontend knows"
        )
        return
    for rule in RULES:
        for sort, says, explained in rule(errand, books):
            yield Finding(sort, f"{errand.what} {errand.request_id}", says, explained)
    for sort, says, explained in reports.about(errand):
        yield Finding(sort, f"{errand.what} {errand.request_id}", says, explained)


def _answered(errand: Errand, books: Books) -> Said:
    answers = books.answers.get(errand.request_id, [])
    if not answers:
        yield LOST, "never answered", None
        return
    finals = final_answers(errand, books)
    if len(finals) > 1 and errand.what not in QUERIES:
        clocks = any(w.fault.name == "clock-jump" for w in books.windows)
        invalid = clocks and any(answer.get("reason") == "invalid" for answer in finals)
        yield (
            UNTRUE,
            f"told different things: {[answer['status'] for answer in finals]}",
            "refused by a worker whose clock was wrong, carried by the other one" if invalid else None,
        )
    row = books.requests.get(errand.request_id)
    if row is None or row["state"] != "settled" or errand.what in QUERIES:
        return
    if len(finals) == 1 and finals[0]["status"] != row["status"] and finals[0].get("reason") != "invalid":
        yield UNTRUE, f"told {finals[0]['status']}, and the ledger says {row['status']}", None


def _in_time(errand: Errand, books: Books) -> Said:
    """Late: the first answer came after the citizen's patience, and no fault was on its path meanwhile."""
    sent, answered = _life(errand, books)
    if (
        errand.request_id not in books.first_answer_at
        or answered - sent <= timedelta(seconds=PATIENCE_S) + TOLERANCE
    ):
        return
    meanwhile = {
        w.fault.name
        for w in books.windows
        if w.fault.hits_answer_of(errand.system) and _overlaps(w, sent, answered)
    }
    waited = (answered - sent).total_seconds()
    names = " and ".join(sorted(meanwhile))
    because = f"answered after more than {PATIENCE_S:g} s; on the path: {names}" if names else None
    yield LATE, f"answered after {waited:.1f} s", because


def _carried_out(errand: Errand, books: Books) -> Said:
    """The booking systems' books say what the last word says, once."""
    if errand.invitation is None or errand.what in (*QUERIES, "words"):
        return
    last, there = last_word(errand, books), _effect(errand, books)
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
    last = last_word(errand, books)
    answers = books.answers.get(errand.request_id, [])
    if last is None or all(answer.get("reason") == "invalid" for answer in answers):
        return
    outcomes = {event["outcome"] for event in books.events.get(errand.request_id, [])}
    given_up = NOT_TOLD in books.causes.get(errand.request_id, set())
    why = "an outcome event was given up after its tries, and the log says so" if given_up else None
    if last not in outcomes and errand.what not in QUERIES:
        yield LOST, f"no outcome event says {last} (there are: {sorted(outcomes)})", why
    elif not outcomes:
        yield LOST, "no outcome event", why


RULES: tuple[Callable[[Errand, Books], Said], ...] = (_answered, _in_time, _carried_out, _announced)


def _notes(errand: Errand, books: Books) -> Iterator[str]:
    """What happened to a request that a person may ask about, by name."""
    statuses = [answer["status"] for answer in books.answers.get(errand.request_id, [])]
    last = last_word(errand, books)
    if "uncertain" in statuses:
        yield f"answered uncertain, corrected to {last}"
    if last == "expired":
        yield "told expired, nothing was called"
    reasons = {answer.get("reason") for answer in books.answers.get(errand.request_id, [])}
    if "invalid" in reasons and errand.what != "refused":
        yield "refused by a worker whose clock was wrong (sentAt lay in its future)"
    if books.causes.get(errand.request_id, set()) & OURS and last == "failed":
        yield "told failed by our own limits, nothing was booked, no supplier told"


# -- the whole run -------------------------------------------------------------------------------------------------


def _of_the_whole(books: Books, reports: Reports) -> Iterator[Finding]:
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
