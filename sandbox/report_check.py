"""Compares what became of the failure reports with what the sample day expects, and with the suppliers' books.

Pure judgement: what the ledger says of a report, what lies in the inboxes, what the lines expect. Asks nobody.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from sandbox.fejlmelding import JOBNET
from sandbox.samples import Line, Run
from sandbox.system_layout import danish_time

MERGED = "merged"
OPEN = ("joining", "waiting", "handed", "delivering")
ENDS = ("delivered", "dead")
CAUSED = ("dead", "discarded")
OPENINGS = {
    2: "Ingen mødetider.",
    3: "Ingen mødetilbud.",
    4: "Systemfejl i kontakten med jobcentrets bookingsystem.",
}
# Between the answer and the instant in the report: the same instant, or at least the same moment.
SAME_MOMENT = timedelta(seconds=5)
Report = Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """What the ledger says of one report: its state, its cause if it is dead."""

    state: str
    cause: str | None = None
    count: int = 1

    @property
    def shown(self) -> str:
        """As the table has it."""
        return "waiting" if self.state in OPEN else self.state


NOWHERE = End("not there")


@dataclass
class ReportResult:
    """What became of the report of one line: `wrong` is empty when it met its expectation exactly."""

    line: Line
    supplier: str
    end: str
    cause: str | None = None
    wrong: list[str] = field(default_factory=list)


def report_id(request_id: str) -> str:
    """The id of the report that a request leads to (DESIGN 6: derived from the requestId)."""
    return str(uuid5(UUID(request_id), "reportId"))


class ReportCheck:
    """The run, the inboxes by supplier; by report id the ledger's word, the last event, its dead letter's cause."""

    def __init__(
        self,
        run: Run,
        ends: Mapping[str, End],
        inboxes: Mapping[str, list[dict[str, Any]]],
        events: Mapping[str, Report],
        letters: Mapping[str, str],
    ) -> None:
        self._run = run
        self._ends = ends
        self._events = events
        self._letters = letters
        self._left = {supplier: list(reports) for supplier, reports in inboxes.items()}
        self._merges: Counter[str] = Counter()
        self._suppliers: dict[str, str] = {}

    def judged(self, lines: Sequence[Line]) -> list[ReportResult]:
        """Every line that leads to a report, judged."""
        reported = [(line, line.report) for line in lines if line.report is not None]
        self._suppliers |= {line.id: str(about.get("supplier", "")) for line, about in reported}
        return [self._judged(line, about) for line, about in reported]

    def surplus(self, lines: Sequence[Line]) -> list[str]:
        """What nobody expected: after `judged`, in the inboxes; in the ledger, of this run's requests."""
        wrong = [
            f"{supplier}: a report that no line leads to (fejlkode {report['fejlkode']}, {report['jobcenterkode']})"
            for supplier, reports in self._left.items()
            for report in reports
        ]
        loud = {self._report_of(line) for line in lines if line.report and line.report["end"] != MERGED}
        for line in lines:
            name = self._report_of(line)
            if name not in loud and name in self._ends:
                wrong.append(f"{line.id}: the ledger has a report that was not to be")
        return wrong

    def _report_of(self, line: Line) -> str:
        """The id that its report has, if it leads to one."""
        try:
            return report_id(self._run.request_id(line))
        except ValueError:  # its requestId is none
            return ""

    def _judged(self, line: Line, about: dict[str, Any]) -> ReportResult:
        want = self._run.resolve(about)
        if want["end"] == MERGED:
            return self._merged(line, str(about["into"]))
        end = self._ends.get(self._report_of(line), NOWHERE)
        posted = ReportResult(line, want["supplier"], end.shown, end.cause)
        if (end.shown, end.cause) != (want["end"], want.get("cause")):
            posted.wrong.append(
                f"report is {_said(end.shown, end.cause)}, not {_said(want['end'], want.get('cause'))}"
            )
        posted.wrong += self._arrived(line, want) + self._announced(line, want)
        letter = self._letters.get(self._report_of(line))
        if letter != want.get("cause"):
            posted.wrong.append(f"its dead letter says {letter}, not {want.get('cause')}")
        return posted

    def _announced(self, line: Line, want: dict[str, Any]) -> list[str]:
        """An end, and nothing else, is told on jobnet.outcomes."""
        event = self._events.get(self._report_of(line), {})
        said = event.get("outcome", "nothing")
        if said != (want["end"] if want["end"] in ENDS else "nothing"):
            return [f"jobnet.outcomes said {said} of its report"]
        if said == "dead" and event.get("cause") != want["cause"]:
            return [f"jobnet.outcomes said that its report is dead of {event.get('cause')}"]
        return []

    def _merged(self, line: Line, into: str) -> ReportResult:
        """Whether the report that it went into has counted it."""
        self._merges[into] += 1
        first = self._ends.get(report_id(self._run.resolve(f"@request:{into}")), NOWHERE)
        posted = ReportResult(line, self._suppliers.get(into, ""), MERGED)
        if first.count < 1 + self._merges[into]:
            posted.wrong.append(
                f"{into}'s report counts {first.count}, not at least {1 + self._merges[into]}"
            )
        return posted

    def _arrived(self, line: Line, want: dict[str, Any]) -> list[str]:
        found = self._find(line, want)
        if want["end"] != "delivered":
            return (
                [] if found is None else ["report is in the supplier's books although it was not taken over"]
            )
        if found is None:
            return [f"report never reached {want['supplier']}"]
        times = want.get("times", 1)
        wrong = [] if found["times"] == times else [f"report arrived {found['times']} times, not {times}"]
        return wrong + list(self._fields(line, want, found))

    def _find(self, line: Line, want: dict[str, Any]) -> dict[str, Any] | None:
        """The report in the supplier's inbox; taken out, so that no other line can have it."""
        cpr = self._run.token(line.body)
        left = self._left.get(want["supplier"], [])
        same = [r for r in left if r["citizen"] == cpr and _same_words(want, r) and self._in_time(line, r)]
        own = self._report_of(line)
        found = next((r for r in same if r["reportId"] == own), same[0] if same else None)
        if found is not None:
            left.remove(found)
        return found

    def _in_time(self, line: Line, report: Report) -> bool:
        """Whether it tells of the moment in which this line was answered (or got its last word)."""
        answered = self._run.answers.get(line.id, {}).get("answeredAt")
        at = datetime.fromisoformat(report["fejlTidspunkt"])
        if answered is None:
            return False
        since = at - datetime.fromisoformat(answered)
        return since > -SAME_MOMENT if line.final else abs(since) < SAME_MOMENT

    def _fields(self, line: Line, want: dict[str, Any], report: Report) -> Iterator[str]:
        """All seven fields; CPR number, text and moment are what it was found by."""
        for name in ("fejlkode", "moedetilbudId", "indkaldelseId"):
            if report[name] != want.get(name):
                yield f"report's {name} is {report[name]}, not {want.get(name)}"
        if report["fejlOphav"] != JOBNET:
            yield "report's fejlOphav is not Jobnet"
        at = datetime.fromisoformat(report["fejlTidspunkt"])
        if at.utcoffset() != at.astimezone(danish_time()).utcoffset():
            yield "report's fejlTidspunkt is not in Danish time"
        if report["jobcenterkode"] != line.body["jobcenterkode"]:
            yield "report's jobcenter is not the request's"
        if report["reportId"] is not None:
            yield from self._of_webhook(line, want, report)

    def _of_webhook(self, line: Line, want: dict[str, Any], report: Report) -> Iterator[str]:
        is_own = "fejltekst" in want
        ours = {"requestId": self._run.request_id(line), "requestType": line.type}
        known = {name: want.get(name) for name in ours} if is_own else ours
        expected = {"kind": "citizen" if is_own else "automatic", **known}
        expected["reportId"] = report_id(self._run.request_id(line))
        for name, value in expected.items():
            if report[name] != value:
                yield f"report's {name} is {report[name]}, not {value}"


def _said(end: str, cause: str | None) -> str:
    return f"{end} ({cause})" if cause else end


def _same_words(want: dict[str, Any], report: Report) -> bool:
    text = str(report["fejltekst"])
    if "fejltekst" in want:
        return bool(text == want["fejltekst"])
    return bool(text.startswith(OPENINGS[want["fejlkode"]]))


def ends_from(rows: Iterable[Mapping[str, Any]]) -> dict[str, End]:
    """What `jobnet-broker reports list --json` says, by report id. A cause is that of an end, not of a pause."""
    return {str(row["report_id"]): _end(row) for row in rows}


def _end(row: Mapping[str, Any]) -> End:
    state = str(row["state"])
    return End(state, row.get("cause") if state in CAUSED else None, int(row.get("count") or 1))


def letters_from(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What `jobnet-broker dead list --json` says of failure reports: the cause by report id."""
    return {str(row["letter_id"]): str(row["cause"]) for row in rows if row["kind"] == "report"}


def rows_of(text: str) -> list[dict[str, Any]]:
    """The rows in a command's JSON. Raises ValueError if there are none to read."""
    rows = json.loads(text)
    if not isinstance(rows, list):
        raise ValueError("the command did not tell a list")
    return rows
