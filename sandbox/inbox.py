"""A supplier's own books: every failure report that it took in, how often, and by which calls.

Also judges them: what may never have happened, each in a sentence. Pure state; no HTTP.
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
    """One report. `identity`: its webhook-id, or for the contract format a name made of its facts."""

    identity: str
    facts: Facts
    call: Call = field(repr=False)
    arrivals: list[Call] = field(default_factory=list, repr=False)
    times: int = 0

    def to_json(self) -> dict[str, Any]:
        """All seven fields (the citizen as a token), what a webhook says more, and each arrival."""
        body = self.call.body
        fields = ("fejlkode", "fejltekst", "fejlOphav", "fejlTidspunkt", "kind", "reportId", "requestId")
        told: dict[str, Any] = {name: body.get(name) for name in (*fields, "requestType", "antal")}
        told |= {
            "citizen": self.call.citizen,
            "moedetilbudId": body.get("moedetilbudId"),
            "indkaldelseId": body.get("indkaldelseId"),
        }
        arrivals = [
            {"at": c.at.isoformat(), "xRequestId": c.x_request_id, "status": c.status} for c in self.arrivals
        ]
        return told | {
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
        """A report has been taken in; the same identity again is the same report."""
        facts = facts_of(call)
        name = identity or str(uuid5(NAMESPACE_OID, repr(facts)))
        if name not in self.reports and len(self.reports) >= MAX_REPORTS:
            raise MemoryError(f"the inbox is full ({MAX_REPORTS} reports)")
        report = self.reports.setdefault(name, ReceivedReport(name, facts, call))
        report.times += 1
        if len(report.arrivals) < MOST_ARRIVALS:
            report.arrivals.append(call)

    def clear(self) -> None:
        """Forget all."""
        self.reports.clear()

    def to_json(self) -> list[dict[str, Any]]:
        """Every report, in the order of first arrival."""
        return [report.to_json() for report in self.reports.values()]

    def disagreements(self) -> list[str]:
        """See `disagreements`."""
        return disagreements(self.reports.values())


def facts_of(call: Call) -> Facts:
    """What makes a report this report, whatever it is called: equal in every try."""
    body = call.body
    told = (body.get(n) for n in ("moedetilbudId", "indkaldelseId", "fejlkode", "fejltekst", "fejlTidspunkt"))
    return (call.citizen, call.jobcenter, *(str(value) for value in told))


def disagreements(reports: Iterable[ReceivedReport]) -> list[str]:
    """What may never be in any inbox.

    One report under two identities, other content under the same one, and a repeat without a reason: it came
    again although it had been taken over with a 204, or under another x-requestId although nobody had answered.
    """
    named: dict[Facts, list[str]] = defaultdict(list)
    wrong: list[str] = []
    for report in reports:
        named[report.facts].append(report.identity)
        for before, again in zip(report.arrivals, report.arrivals[1:], strict=False):
            wrong += [f"{report.identity} {what}" for what in _repeat(before, again)]
    wrong += [f"{' and '.join(names)} are one report" for names in named.values() if len(names) > 1]
    return wrong


def _repeat(before: Call, again: Call) -> list[str]:
    wrong = []
    if facts_of(before) != facts_of(again):
        wrong.append("came again with other content")
    same_id = before.x_request_id == again.x_request_id
    if before.status == 204 and not same_id:
        wrong.append("came again although it had been answered 204")
    if before.status is None and not same_id:
        wrong.append("came again under another x-requestId although nobody had answered")
    return wrong


@dataclass
class RetryAfterCheck:
    """What a supplier asked for with Retry-After, and whether it was obeyed."""

    asked_at: datetime | None = None
    until: datetime | None = None

    def ask(self, now: datetime, until: datetime) -> None:
        """It answered: not before then."""
        if self.until is None or until > self.until:
            self.asked_at, self.until = now, until

    def is_obeyed(self, at: datetime, grace: float) -> bool:
        """Whether a call may come now; `grace` in seconds is for those that were already on their way."""
        if self.asked_at is None or self.until is None or at >= self.until:
            return True
        return (at - self.asked_at).total_seconds() <= grace
