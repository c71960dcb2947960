"""Compares the failure reports with what the sample day expects: in the ledger, the inboxes and the outcome events.

Pure functions over data that the caller has read. No I/O.
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
WITH_CAUSE = ("dead", "discarded")
TEXT_STARTS = {
    2: "Ingen mødetider.",
    3: "Ingen mødetilbud.",
    4: "Systemfejl i kontakten med jobcentrets bookingsystem.",
}
# The time in the report and the time of the answer differ by less than this.
SAME_MOMENT = timedelta(seconds=5)
Report = Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """The state of one report in the ledger, and its cause if it is dead."""

    state: str
    cause: str | None = None
    count: int = 1

    @property
    def shown(self) -> str:
        """The state as the table shows it."""
        return "waiting" if self.state in OPEN else self.state


NOT_THERE = End("not there")


@dataclass
class ReportResult:
    """The end of the report of one line; `problems` is empty if it is as expected."""

    line: Line
    supplier: str
    end: str
    cause: str | None = None
    problems: list[str] = field(default_factory=list)


def report_id(request_id: str) -> str:
    """The id of the report that a request leads to, derived from the requestId."""
    return str(uuid5(UUID(request_id), "reportId"))


class ReportCheck:
    """Checks the reports of one run.

    `inboxes` are by supplier; `ends` in the ledger, the last outcome `events` and the `causes` of dead letters are by
    report id.
    """

    def __init__(
        self,
        run: Run,
        ends: Mapping[str, End],
        inboxes: Mapping[str, list[dict[str, Any]]],
        events: Mapping[str, Report],
        causes: Mapping[str, str],
    ) -> None:
        self._run = run
        self._ends = ends
        self._events = events
        self._causes = causes
        self._left = {supplier: list(reports) for supplier, reports in inboxes.items()}
        self._merges: Counter[str] = Counter()
        self._suppliers: dict[str, str] = {}

    def results(self, lines: Sequence[Line]) -> list[ReportResult]:
        """The result of every line that expects a report."""
        reported = [(line, line.report) for line in lines if line.report is not None]
        self._suppliers |= {line.id: str(about.get("supplier", "")) for line, about in reported}
        return [self._result(line, about) for line, about in reported]

    def unexpected(self, lines: Sequence[Line]) -> list[str]:
        """Reports that no line expects: in the inboxes (after `results`) and, for this run, in the ledger."""
        problems = [
            f"{supplier}: a report that no line leads to (fejlkode {report['fejlkode']}, {report['jobcenterkode']})"
            for supplier, reports in self._left.items()
            for report in reports
        ]
        with_report = {
            self._report_of(line) for line in lines if line.report and line.report["end"] != MERGED
        }
        for line in lines:
            name = self._report_of(line)
            if name not in with_report and name in self._ends:
                problems.append(f"{line.id}: the ledger has a report that is not expected")
        return problems

    def _report_of(self, line: Line) -> str:
        """The id of the line's report, or an empty string if the line's requestId is invalid."""
        try:
            return report_id(self._run.request_id(line))
        except ValueError:
            return ""

    def _result(self, line: Line, about: dict[str, Any]) -> ReportResult:
        expected = self._run.resolve(about)
        if expected["end"] == MERGED:
            return self._merged(line, str(about["into"]))
        end = self._ends.get(self._report_of(line), NOT_THERE)
        result = ReportResult(line, expected["supplier"], end.shown, end.cause)
        if (end.shown, end.cause) != (expected["end"], expected.get("cause")):
            wanted = _with_cause(expected["end"], expected.get("cause"))
            result.problems.append(f"report is {_with_cause(end.shown, end.cause)}, not {wanted}")
        result.problems += self._arrived(line, expected) + self._announced(line, expected)
        cause = self._causes.get(self._report_of(line))
        if cause != expected.get("cause"):
            result.problems.append(f"the cause of its dead letter is {cause}, not {expected.get('cause')}")
        return result

    def _announced(self, line: Line, expected: dict[str, Any]) -> list[str]:
        """Problems with the event on jobnet.outcomes: there is one for each end and for no other state."""
        event = self._events.get(self._report_of(line), {})
        outcome = event.get("outcome", "none")
        if outcome != (expected["end"] if expected["end"] in ENDS else "none"):
            return [f"the outcome event of its report is {outcome}"]
        if outcome == "dead" and event.get("cause") != expected["cause"]:
            return [f"the cause in the outcome event of its report is {event.get('cause')}"]
        return []

    def _merged(self, line: Line, into: str) -> ReportResult:
        """Check that the report into which it was merged has counted it."""
        self._merges[into] += 1
        first = self._ends.get(report_id(self._run.resolve(f"@request:{into}")), NOT_THERE)
        result = ReportResult(line, self._suppliers.get(into, ""), MERGED)
        if first.count < 1 + self._merges[into]:
            result.problems.append(
                f"{into}'s report counts {first.count}, not at least {1 + self._merges[into]}"
            )
        return result

    def _arrived(self, line: Line, expected: dict[str, Any]) -> list[str]:
        found = self._find(line, expected)
        if expected["end"] != "delivered":
            return [] if found is None else ["report is in the inbox although it was not delivered"]
        if found is None:
            return [f"report did not reach {expected['supplier']}"]
        times = expected.get("times", 1)
        problems = [] if found["times"] == times else [f"report arrived {found['times']} times, not {times}"]
        return problems + list(self._fields(line, expected, found))

    def _find(self, line: Line, expected: dict[str, Any]) -> dict[str, Any] | None:
        """The line's report in the supplier's inbox. It is removed, so that it matches no other line."""
        cpr = self._run.token(line.body)
        left = self._left.get(expected["supplier"], [])
        same = [r for r in left if r["citizen"] == cpr and _same_text(expected, r) and self._in_time(line, r)]
        own = self._report_of(line)
        found = next((r for r in same if r["reportId"] == own), same[0] if same else None)
        if found is not None:
            left.remove(found)
        return found

    def _in_time(self, line: Line, report: Report) -> bool:
        """Whether the report's time is that of the failed line's answer, or later if a final outcome followed it."""
        # A citizen's report that was joined has the time of the failure (R14), any other that of its own answer.
        failed = str((line.report or {}).get("requestId", "")).removeprefix("@request:")
        answered = self._run.answers.get(failed or line.id, {}).get("answeredAt")
        at = datetime.fromisoformat(report["fejlTidspunkt"])
        if answered is None:
            return False
        since = at - datetime.fromisoformat(answered)
        return since > -SAME_MOMENT if line.final else abs(since) < SAME_MOMENT

    def _fields(self, line: Line, expected: dict[str, Any], report: Report) -> Iterator[str]:
        """Compare the fields; CPR number, text and time are already equal, because the report was found by them."""
        for name in ("fejlkode", "moedetilbudId", "indkaldelseId"):
            if report[name] != expected.get(name):
                yield f"report's {name} is {report[name]}, not {expected.get(name)}"
        if report["fejlOphav"] != JOBNET:
            yield "report's fejlOphav is not Jobnet"
        at = datetime.fromisoformat(report["fejlTidspunkt"])
        if at.utcoffset() != at.astimezone(danish_time()).utcoffset():
            yield "report's fejlTidspunkt is not in Danish time"
        if report["jobcenterkode"] != line.body["jobcenterkode"]:
            yield "report's jobcenter is not the request's"
        if report["reportId"] is not None:
            yield from self._of_webhook(line, expected, report)

    def _of_webhook(self, line: Line, expected: dict[str, Any], report: Report) -> Iterator[str]:
        by_citizen = "fejltekst" in expected
        request = {"requestId": self._run.request_id(line), "requestType": line.type}
        known = {name: expected.get(name) for name in request} if by_citizen else request
        values = {"kind": "citizen" if by_citizen else "automatic", **known}
        values["reportId"] = report_id(self._run.request_id(line))
        for name, value in values.items():
            if report[name] != value:
                yield f"report's {name} is {report[name]}, not {value}"


def _with_cause(end: str, cause: str | None) -> str:
    return f"{end} ({cause})" if cause else end


def _same_text(expected: dict[str, Any], report: Report) -> bool:
    text = str(report["fejltekst"])
    if "fejltekst" in expected:
        return bool(text == expected["fejltekst"])
    return bool(text.startswith(TEXT_STARTS[expected["fejlkode"]]))


def ends_from(rows: Iterable[Mapping[str, Any]]) -> dict[str, End]:
    """The ends by report id, from the rows of `jobnet-broker reports list --json`.

    The cause of a report that still waits is left out.
    """
    return {str(row["report_id"]): _end(row) for row in rows}


def _end(row: Mapping[str, Any]) -> End:
    state = str(row["state"])
    return End(state, row.get("cause") if state in WITH_CAUSE else None, int(row.get("count") or 1))


def causes_from(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The causes of dead failure reports by report id, from the rows of `jobnet-broker dead list --json`."""
    return {str(row["letter_id"]): str(row["cause"]) for row in rows if row["kind"] == "report"}


def rows_of(text: str) -> list[dict[str, Any]]:
    """The rows in the JSON output of a list command. Raises ValueError if it is not a list."""
    rows = json.loads(text)
    if not isinstance(rows, list):
        raise ValueError("the output of the command is not a list")
    return rows
