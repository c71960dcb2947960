"""Builds the lines of a sample day: bodies, expected outcomes, control steps, citizens and times that are used once.

The content of the day is in make_day.py and the modules that it uses.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from sandbox.system_layout import IN_PERSON, KINDS, default_layout

BIRK, LIND = ("90001", "90002", "90003", "90004"), ("90005", "90006", "90007", "90008")
HEALTHY = BIRK + LIND
DOWN, HANGS, GARBAGE, ROEN = "90009", "90010", "90011", "90012"
SYSTEM = dict.fromkeys(BIRK, "birk") | dict.fromkeys(LIND, "lind")
# Roen serves one jobcenter of each supplier that works. It fails for one citizen at a time.
ROEN_WEBHOOK, ROEN_CONTRACT = "90013", "90014"
SYSTEM |= {DOWN: "pil", HANGS: "hassel", GARBAGE: "tjoern"} | dict.fromkeys(
    (ROEN, ROEN_WEBHOOK, ROEN_CONTRACT), "roen"
)
_LAYOUT = default_layout()
SUPPLIER = {code: plan.supplier for code, plan in _LAYOUT.jobcenters.items()}
WANTED = {name: plan.limits.get("report_codes", (4,)) for name, plan in _LAYOUT.supplier_plans.items()}
FAILED = {"status": "failed", "fejlkode": 4}
DONE = {"status": "done"}
OFFERS, TIMES = "query.offers.v1", "query.times.v1"
BOOK, IMMEDIATE, REBOOK = "booking.book.v1", "booking.immediate.v1", "booking.rebook.v1"
ACCEPT, CANCEL = "booking.accept.v1", "booking.cancel.v1"
REPORT = "report.citizen.v1"

Line = dict[str, Any]


def refused(reason: str, *fields: str) -> dict[str, Any]:
    """The expected answer of a refused request."""
    return {"status": "refused", "reason": reason} | ({"fields": list(fields)} if fields else {})


def report_on(body: Line, code: int, end: str = "delivered", **more: Any) -> Line:
    """The expected report about a request with this body; it names the same offer and meeting."""
    ids = {name: body[name] for name in ("moedetilbudId", "indkaldelseId") if body.get(name)}
    supplier = SUPPLIER.get(body["jobcenterkode"], "")
    return {"end": end, "supplier": supplier, "fejlkode": code} | ids | more


def automatic(body: Line, code: int, **more: Any) -> Line | None:
    """The expected automatic report of a failure, or None if the supplier does not want this fejlkode."""
    return report_on(body, code, **more) if code in WANTED[SUPPLIER[body["jobcenterkode"]]] else None


class DayBuilder:
    """The lines so far. Citizens and times are given out once."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._citizens = itertools.count(1)
        self._free: dict[tuple[str, str], Iterator[tuple[int, int]]] = {}
        self._healthy = itertools.cycle(HEALTHY)

    def citizen(self) -> int:
        """A new citizen."""
        return next(self._citizens)

    def jobcenter(self) -> str:
        """The healthy jobcenters in turn."""
        return next(self._healthy)

    def time(self, code: str, kind: str, form: str = IN_PERSON) -> tuple[int, int]:
        """A time (day, number) that no other line uses and that offers this form."""
        plan = next(k for k in KINDS if k.name == kind)
        if (code, kind) not in self._free:
            self._free[code, kind] = iter(itertools.product(range(plan.days), range(plan.times_a_day)))
        return next(t for t in self._free[code, kind] if form in plan.forms[t[1] % len(plan.forms)])

    def add(self, name: str, type: str, body: dict[str, Any], expect: dict[str, Any], **more: Any) -> str:
        """Add a line and return its id. A failure expects an automatic report unless `report` is given (None: none)."""
        line_id = f"{len(self.lines):03}-{name}"
        if "report" not in more and expect.get("status") == "failed":
            more["report"] = automatic(body, expect["fejlkode"])
        given = {key: value for key, value in more.items() if value is not None}
        self.lines.append({"id": line_id, "type": type, "body": body, "expect": expect} | given)
        return line_id

    def person(self, code: str, citizen: int | None = None) -> dict[str, Any]:
        """The fields of every request."""
        return {"cpr": f"@citizen:{citizen or self.citizen()}", "jobcenterkode": code}

    def query(self, code: str, **fields: Any) -> dict[str, Any]:
        """The body of a query."""
        return self.person(code) | {"kontaktgruppe": "2"} | fields

    def times(self, code: str, kind: str, **fields: Any) -> dict[str, Any]:
        """The body of a query for times."""
        return self.query(code, moedetilbudId=f"@offer:{code}/{kind}") | fields

    def wish(self, code: str, kind: str = "samtale", form: str = IN_PERSON, worker: int | None = 1) -> Line:
        """The body of a booking.book or booking.immediate at a time that no other line uses."""
        day, number = self.time(code, kind, form)
        wanted = {"starttidspunkt": f"@slot:{day}/{number}", "moedeform": form}
        caseworker = {"sagsbehandlerId": f"{code}-{kind}-{worker}"} if worker else {}
        return self.times(code, kind) | wanted | caseworker

    def move(self, code: str, name: str, citizen: int, form: str = IN_PERSON) -> Line:
        """The body of a booking.rebook of the meeting `name`."""
        wanted = self.wish(code, "samtale", form)
        del wanted["moedetilbudId"]
        return wanted | self.person(code, citizen) | {"indkaldelseId": name}

    def seed(self, code: str, name: str, citizen: int, **more: Any) -> dict[str, Any]:
        """The control step that inserts a meeting before the line is sent."""
        day, number = self.time(code, "samtale")
        wanted = {"jobcenter": code, "kind": "samtale", "invitation": name, "cpr": f"@citizen:{citizen}"}
        wanted |= {"starts_at": f"@slot:{day}/{number}", "form": IN_PERSON}
        return control(code, "seed", wanted | {"caseworker_id": f"{code}-samtale-1"} | more)

    def on_meeting(
        self, name: str, type: str, code: str, expect: Line, fault: Line | None = None, **seed: Any
    ) -> str:
        """Add a rebook, accept or cancel of a meeting inserted before it. `fault`: a script step for its citizen."""
        citizen = self.citizen()
        meeting = f"@invitation:{len(self.lines)}"
        steps = [self.seed(code, meeting, citizen, **seed)]
        if fault:
            steps.append(citizen_fault(code, citizen, **fault))
        person = self.person(code, citizen) | {"indkaldelseId": meeting}
        body = self.move(code, meeting, citizen) if type == REBOOK else person
        return self.add(name, type, body, expect, before=steps)

    def faulty(self, name: str, type: str, code: str, expect: Line, *faults: Line, **more: Any) -> str:
        """Add a booking for whose citizen the booking system fails; `supplier_fault`: a step for the supplier, too."""
        kind = "straks" if type == IMMEDIATE else "samtale"
        citizen = self.citizen()
        body = self.wish(code, kind) | self.person(code, citizen)
        steps = [citizen_fault(code, citizen, **step) for step in faults]
        if supplier_fault := more.pop("supplier_fault", None):
            steps.append(citizen_fault(code, citizen, systems=SUPPLIER, operation="report", **supplier_fault))
        return self.add(name, type, body, expect, before=steps, **more)


def control(code: str, do: str, what: dict[str, Any], systems: dict[str, str] = SYSTEM) -> dict[str, Any]:
    """A control step for the booking system of a jobcenter, or (`systems=SUPPLIER`) for its supplier."""
    return {"system": systems[code], "do": do, "with": what}


def citizen_fault(
    code: str, citizen: int, *, systems: dict[str, str] = SYSTEM, **step: Any
) -> dict[str, Any]:
    """A control step that adds a script step for one citizen only."""
    citizen_filter = {"citizen": f"@token:{citizen}", "label": f"@citizen-label:{citizen}"}
    return control(code, "script", citizen_filter | step, systems)
