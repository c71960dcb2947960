"""Reads a sample day, makes its lines into requests of one run, judges answers by their lines' expectation.

What `@` stands for in a line: `@citizen:7` an invented CPR number, `@token:7` and `@citizen-label:7` how the
sandbox and its script name that citizen, `@offer:JOBCENTER/KIND`, `@slot:DAY/NUMBER` (`+15`: minutes later),
`@now:-60` (seconds from the sending), `@invitation:NAME` and `@request:LINE` an id of this run,
`@booked:LINE` the indkaldelseId in that line's answer. Sends nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from sandbox.books import citizen_token
from sandbox.system_layout import offer_id, slot_time

# Birth dates in the 2030s (7th digit 4 with years 30 to 36): numbers that no person has.
YEARS, MONTHS, DAYS, SERIALS = range(30, 37), range(1, 13), range(1, 29), range(4000, 5000)
CITIZENS = len(YEARS) * len(MONTHS) * len(DAYS) * len(SERIALS)


def invented_cpr(number: int) -> str:
    """The CPR number of citizen `number`; different for different numbers below CITIZENS."""
    rest, serial = divmod(number % CITIZENS, len(SERIALS))
    rest, day = divmod(rest, len(DAYS))
    year, month = divmod(rest, len(MONTHS))
    return f"{DAYS[day]:02}{MONTHS[month]:02}{YEARS[year]:02}{SERIALS[serial]}"


@dataclass(frozen=True)
class Line:
    """One line of a sample day; see make_day.py for how they come about."""

    id: str
    type: str
    body: dict[str, Any]
    expect: dict[str, Any]
    before: list[dict[str, Any]] = field(default_factory=list)
    afterwards: list[dict[str, Any]] = field(default_factory=list)
    final: dict[str, Any] | None = None
    after: str | None = None
    when: dict[str, Any] | None = None
    routing_key: str | None = None
    raw: str | None = None
    report: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        """The routing key: the type without its version, if the line does not say otherwise."""
        return self.routing_key or self.type.rpartition(".v")[0]

    @property
    def is_copy(self) -> bool:
        """Whether it repeats another line and so has no effect of its own."""
        return "same_as" in self.expect

    @property
    def ends(self) -> str:
        """How it must end in the end."""
        return str(self.final["outcome"] if self.final else self.expect.get("status", ""))


@dataclass(frozen=True)
class SetUp:
    """What the sandbox is told: before the first request, and at noon, when the lines `morning` have ended."""

    controls: list[dict[str, Any]]
    morning: list[str] = field(default_factory=list)
    noon: list[dict[str, Any]] = field(default_factory=list)


def read_day(path: Path) -> tuple[SetUp, list[Line]]:
    """The first line, and the requests. Raises ValueError, TypeError for a bad file."""
    raw = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    first = {name: value for name, value in raw[0].items() if name != "id"}
    return SetUp(**first), [Line(**line) for line in raw[1:]]


class Run:
    """One sending of a sample day: gives `@` its meaning. `answers` fills up with the lines' answers."""

    def __init__(self, run_id: UUID, first_day: date) -> None:
        self.run_id = run_id
        self.first_day = first_day
        self.answers: dict[str, dict[str, Any]] = {}
        self._first_citizen = run_id.int % CITIZENS

    def resolve(self, value: Any) -> Any:
        """`value` with every `@…` replaced, as of now."""
        if isinstance(value, dict):
            return {name: self.resolve(part) for name, part in value.items()}
        if isinstance(value, list):
            return [self.resolve(part) for part in value]
        if isinstance(value, str) and value.startswith("@"):
            kind, _, what = value[1:].partition(":")
            return getattr(self, f"_{kind.replace('-', '_')}")(what)
        return value

    def body(self, line: Line) -> bytes:
        """The request as it goes out now."""
        if line.raw is not None:
            return line.raw.encode()
        usual = {"requestId": f"@request:{line.id}", "sentAt": "@now:0"}
        return json.dumps(self.resolve(usual | line.body), ensure_ascii=False).encode()

    def request_id(self, line: Line) -> str:
        """The requestId of a line."""
        return str(self.resolve(line.body.get("requestId", f"@request:{line.id}")))

    def token(self, body: dict[str, Any]) -> str:
        """How the sandbox names the citizen of a line's body."""
        return citizen_token(str(self.resolve(body.get("cpr", ""))))

    def _citizen(self, number: str) -> str:
        return invented_cpr(self._first_citizen + int(number))

    def _token(self, number: str) -> str:
        return citizen_token(self._citizen(number))

    def _citizen_label(self, number: str) -> str:
        return f"citizen-{number}"

    def _offer(self, where: str) -> str:
        jobcenter, _, kind = where.partition("/")
        return str(offer_id(jobcenter, kind))

    def _slot(self, when: str) -> str:
        place, _, minutes = when.partition("+")
        day, _, number = place.partition("/")
        at = slot_time(self.first_day, int(day), int(number)) + timedelta(minutes=int(minutes or 0))
        return at.isoformat()

    def _now(self, seconds: str) -> str:
        return (datetime.now(UTC) + timedelta(seconds=float(seconds))).isoformat()

    def _invitation(self, name: str) -> str:
        return str(uuid5(self.run_id, f"invitation/{name}"))

    def _request(self, line_id: str) -> str:
        return str(uuid5(self.run_id, f"request/{line_id}"))

    def _booked(self, line_id: str) -> str:
        booking = (self.answers.get(line_id, {}).get("result") or {}).get("booking") or {}
        return str(booking.get("indkaldelseId", self._invitation(line_id)))


def mismatches(line: Line, sent: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """What in an answer is not as the line expects, in sentences; empty when it is met."""
    result = answer.get("result") or {}
    booking = result.get("booking") or {}
    seen = {
        "status": answer.get("status"),
        "reason": answer.get("reason"),
        "fejlkode": answer.get("fejlkode"),
        "fields": [problem.get("field") for problem in answer.get("fields", ())],
        "count": len(result.get("tider", result.get("moedetilbud", ()))),
        "form": booking.get("moedeform"),
    }
    wanted = {name: value for name, value in line.expect.items() if name in seen}
    wrong = [f"{name} is {seen[name]}, not {value}" for name, value in wanted.items() if seen[name] != value]
    if (
        booking
        and "starttidspunkt" in sent
        and not _same_time(booking["starttidspunkt"], sent["starttidspunkt"])
    ):
        wrong.append("the booking is at another time than asked for")
    if wrong and answer.get("fejltekst"):
        wrong.append(f"fejltekst: {answer['fejltekst']}")
    return wrong


def final_mismatches(final: dict[str, Any], event: dict[str, Any]) -> list[str]:
    """The same for the last word on an uncertain booking."""
    return [
        f"final {name} is {event.get(name)}, not {value}"
        for name, value in final.items()
        if event.get(name) != value
    ]


def _same_time(one: str, other: str) -> bool:
    return datetime.fromisoformat(one) == datetime.fromisoformat(other)
