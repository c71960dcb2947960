"""Reads a sample day, turns its lines into the requests of one run, and compares answers with the expected ones.

Placeholders in a line, replaced when it is sent:

- `@citizen:7`: an invented CPR number; `@token:7`, `@citizen-label:7`: that citizen in the sandbox's books and scripts
- `@offer:JOBCENTER/KIND`: a moedetilbudId; `@slot:DAY/NUMBER` or `@slot:DAY/NUMBER+15`: a start, 15 minutes later
- `@now:-60`: seconds from now; `@invitation:NAME`, `@request:LINE`: ids of this run
- `@booked:LINE`: the indkaldelseId in the answer to that line
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

# No person has these numbers: their birth dates are in the 2030s (7th digit 4 with years 30 to 36).
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
    """One line of a sample day. make_day.py writes them."""

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
        """The routing key: the line's own, or the type without its version."""
        return self.routing_key or self.type.rpartition(".v")[0]

    @property
    def is_copy(self) -> bool:
        """Whether it repeats another line; then it has no effect of its own."""
        return "same_as" in self.expect

    @property
    def ends(self) -> str:
        """The expected final status."""
        return str(self.final["outcome"] if self.final else self.expect.get("status", ""))


@dataclass(frozen=True)
class SetUp:
    """Control steps: `controls` before the first request, `noon` after the lines `morning` have been answered."""

    controls: list[dict[str, Any]]
    morning: list[str] = field(default_factory=list)
    noon: list[dict[str, Any]] = field(default_factory=list)


def read_day(path: Path) -> tuple[SetUp, list[Line]]:
    """The set-up (first line) and the requests. Raises ValueError or TypeError if the file is invalid."""
    raw = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    first = {name: value for name, value in raw[0].items() if name != "id"}
    return SetUp(**first), [Line(**line) for line in raw[1:]]


class Run:
    """One run of a sample day: replaces its placeholders. `answers` has the answers so far, by line."""

    def __init__(self, run_id: UUID, first_day: date) -> None:
        self.run_id = run_id
        self.first_day = first_day
        self.answers: dict[str, dict[str, Any]] = {}
        self._first_citizen = run_id.int % CITIZENS

    def resolve(self, value: Any) -> Any:
        """`value` with every placeholder replaced; times are relative to now."""
        if isinstance(value, dict):
            return {name: self.resolve(part) for name, part in value.items()}
        if isinstance(value, list):
            return [self.resolve(part) for part in value]
        if isinstance(value, str) and value.startswith("@"):
            kind, _, what = value[1:].partition(":")
            return getattr(self, f"_{kind.replace('-', '_')}")(what)
        return value

    def body(self, line: Line) -> bytes:
        """The body of the request, if it is sent now."""
        if line.raw is not None:
            return line.raw.encode()
        defaults = {"requestId": f"@request:{line.id}", "sentAt": "@now:0"}
        return json.dumps(self.resolve(defaults | line.body), ensure_ascii=False).encode()

    def request_id(self, line: Line) -> str:
        """The requestId of a line."""
        return str(self.resolve(line.body.get("requestId", f"@request:{line.id}")))

    def token(self, body: dict[str, Any]) -> str:
        """The token by which the sandbox's books name the citizen of a line's body."""
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
    """Sentences about what in an answer is not as the line expects; empty if all is."""
    result = answer.get("result") or {}
    booking = result.get("booking") or {}
    actual = {
        "status": answer.get("status"),
        "reason": answer.get("reason"),
        "fejlkode": answer.get("fejlkode"),
        "fields": [problem.get("field") for problem in answer.get("fields", ())],
        "count": len(result.get("tider", result.get("moedetilbud", ()))),
        "form": booking.get("moedeform"),
    }
    expected = {name: value for name, value in line.expect.items() if name in actual}
    problems = [
        f"{name} is {actual[name]}, not {value}" for name, value in expected.items() if actual[name] != value
    ]
    if (
        booking
        and "starttidspunkt" in sent
        and not _same_time(booking["starttidspunkt"], sent["starttidspunkt"])
    ):
        problems.append("the booking is at another time than requested")
    if problems and answer.get("fejltekst"):
        problems.append(f"fejltekst: {answer['fejltekst']}")
    return problems


def final_mismatches(final: dict[str, Any], event: dict[str, Any]) -> list[str]:
    """The same for the event with the final outcome of an uncertain booking."""
    return [
        f"final {name} is {event.get(name)}, not {value}"
        for name, value in final.items()
        if event.get(name) != value
    ]


def _same_time(first: str, second: str) -> bool:
    return datetime.fromisoformat(first) == datetime.fromisoformat(second)
