"""The inbox of a supplier: every failure report that it accepted, how often, and by which calls.

It also checks for what must never happen, such as a repeat without a reason. Pure state; no HTTP.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from sandbox.journal import Call

MAX_REPORTS = 100_000
MOST_ARRIVALS = 1_000
Facts = tuple[str, ...]


@dataclass
class ReceivedReport:
    """One report. `identity` is its webhook-id or, in the contract format, an id derived from its facts."""

    identity: str
    facts: Facts
    call: Call = field(repr=False)
    arrivals: list[Call] = field(default_factory=list, repr=False)
    times: int = 0

    def to_json(self) -> dict[str, Any]:
        """All fields (the citizen as a token) and each arrival."""
        body = self.call.body
        fields = ("fejlkode", "fejltekst", "fejlOphav", "fejlTidspunkt", "kind", "reportId", "requestId")
        result: dict[str, Any] = {name: body.get(name) for name in (*fields, "requestType", "antal")}
        result |= {
            "citizen": self.call.citizen,
            "moedetilbudId": body.get("moedetilbudId"),
            "indkaldelseId": body.get("indkaldelseId"),
        }
        arrivals = [
            {"at": c.at.isoformat(), "xRequestId": c.x_request_id, "status": c.status} for c in self.arrivals
        ]
        return result | {
            "identity": self.identity,
            "jobcenterkode": self.call.jobcenter,
            "times": self.times,
            "arrivals": arrivals,
        }


class Inbox:
    """The reports of one supplier. `take` raises MemoryError when it is full."""

    def __init__(self) -> None:
        self.reports: dict[str, ReceivedReport] = {}

    def take(self, identity: str | None, call: Call) -> None:
        """Add a report that was accepted. The same identity again counts as another arrival."""
        facts = facts_of(call)
        name = identity or str(uuid5(NAMESPACE_OID, repr(facts)))
        if name not in self.reports and len(self.reports) >= MAX_REPORTS:
            raise MemoryError(f"the inbox is full ({MAX_REPORTS} reports)")
        report = self.reports.setdefault(name, ReceivedReport(name, facts, call))
        report.times += 1
        if len(report.arrivals) < MOST_ARRIVALS:
            report.arrivals.append(call)

    def clear(self) -> None:
        """Delete all reports."""
        self.reports.clear()

    def to_json(self) -> list[dict[str, Any]]:
        """Every report, in the order of first arrival."""
        return [report.to_json() for report in self.reports.values()]

    def disagreements(self) -> list[str]:
        """The errors in this inbox; see the function `disagreements`."""
        return disagreements(self.reports.values())


def facts_of(call: Call) -> Facts:
    """The content that is the same in every delivery attempt of one report."""
    body = call.body
    values = (
        body.get(n) for n in ("moedetilbudId", "indkaldelseId", "fejlkode", "fejltekst", "fejlTidspunkt")
    )
    return (call.citizen, call.jobcenter, *(str(value) for value in values))


def disagreements(reports: Iterable[ReceivedReport]) -> list[str]:
    """A sentence for each error in an inbox; empty if there is none.

    Errors are: one report under two identities, different content under one identity, and a repeat without a reason,
    that is after a 204, or with another x-requestId although the first call was not answered.
    """
    named: dict[Facts, list[str]] = defaultdict(list)
    errors: list[str] = []
    for report in reports:
        named[report.facts].append(report.identity)
        for before, again in zip(report.arrivals, report.arrivals[1:], strict=False):
            errors += [f"{report.identity} {what}" for what in _repeat(before, again)]
    errors += [f"{' and '.join(names)} are one report" for names in named.values() if len(names) > 1]
    return errors


def _repeat(before: Call, again: Call) -> list[str]:
    errors = []
    if facts_of(before) != facts_of(again):
        errors.append("came again with other content")
    same_id = before.x_request_id == again.x_request_id
    if before.status == 204 and not same_id:
        errors.append("came again although it had been answered 204")
    if before.status is None and not same_id:
        errors.append("came again under another x-requestId although it had not been answered")
    return errors


@dataclass
class RetryAfterCheck:
    """Checks that no call comes before the time that the supplier gave with Retry-After."""

    asked_at: datetime | None = None
    until: datetime | None = None

    def ask(self, now: datetime, until: datetime) -> None:
        """Note a Retry-After; the latest time counts."""
        if self.until is None or until > self.until:
            self.asked_at, self.until = now, until

    def is_obeyed(self, at: datetime, grace: float) -> bool:
        """Whether a call may come at `at`; `grace` in seconds allows for calls that were already under way."""
        if self.asked_at is None or self.until is None or at >= self.until:
            return True
        return (at - self.asked_at).total_seconds() <= grace
