"""Writes samples/day.jsonl: about 400 requests, each with its expected outcome. `python -m sandbox.make_day`.

The file is the same each time. Every line is independent of the others unless it has `after`: it has its own citizen
and its own time. Each kind of fault has its own booking system: pil is down, hassel hangs, tjoern answers garbage, and
roen fails for one citizen at a time. The other parts of the day are in day_outages.py, day_refusals.py and
day_reports.py; samples.py explains the placeholders (`@…`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sandbox.day_builder import (
    ACCEPT,
    BOOK,
    CANCEL,
    DONE,
    DOWN,
    FAILED,
    GARBAGE,
    HANGS,
    HEALTHY,
    IMMEDIATE,
    OFFERS,
    REBOOK,
    SUPPLIER,
    TIMES,
    DayBuilder,
    Line,
    control,
    refused,
)
from sandbox.day_outages import (
    failing_systems,
    one_at_a_time,
    refused_midway,
    short_faults,
    uncertain_bookings,
)
from sandbox.day_refusals import invalid_messages, no_contact_group, too_late
from sandbox.day_reports import REPORT_PARTS
from sandbox.system_layout import DIGITAL, GROUP_WITHOUT_OFFERS, IN_PERSON, TELEPHONE

FILE = Path(__file__).parent / "samples" / "day.jsonl"


def set_up(day: DayBuilder) -> None:
    """The faults that last all day, set before the first request."""
    hang = {"operation": "any", "action": "hang", "times": None, "seconds": 30}
    garbage = {"operation": "any", "action": "garbage", "times": None}
    # Supplier havn is down until noon. Supplier bro answers the first reports with 503 and Retry-After.
    wait = {"operation": "report", "action": "status", "status": 503, "retry_after": "3", "times": 4}
    down = {"mode": "down"}
    steps = [control(HANGS, "script", hang), control(GARBAGE, "script", garbage), control(DOWN, "mode", down)]
    steps += [control(DOWN, "mode", down, SUPPLIER), control(GARBAGE, "script", wait, SUPPLIER)]
    day.lines.append({"id": "000-set-up", "controls": steps})


def at_noon(day: DayBuilder) -> None:
    """Supplier havn comes back when the failing requests of the morning have been answered."""
    morning = [line["id"] for line in day.lines if line["id"][4:].startswith(("down-", "hangs-"))]
    day.lines[0] |= {"morning": morning, "noon": [control(DOWN, "mode", {"mode": "up"}, SUPPLIER)]}


def queries(day: DayBuilder) -> None:
    """Offers and times (R2), and their fejlkoder when there are none or the system fails (R4, R10)."""
    for number, code in enumerate(HEALTHY * 2):
        group: Any = 2 if number % 3 == 0 else "2"  # the contract allows a JSON number, too
        day.add("offers", OFFERS, day.query(code, kontaktgruppe=group), DONE | {"count": 4})
    for code in HEALTHY:
        day.add("offers-immediate", OFFERS, day.query(code, straksbooking=True), DONE | {"count": 2})
        day.add("times-three-forms", TIMES, day.times(code, "tre-former"), DONE | {"count": 30})
        day.add("times-few", TIMES, day.times(code, "faa"), DONE | {"count": 6})
        body = day.times(code, "straks", straksbooking=True)
        day.add("times-immediate", TIMES, body, DONE | {"count": 30})
    for code in HEALTHY[:4]:
        body = day.query(code, kontaktgruppe=GROUP_WITHOUT_OFFERS)
        day.add("no-offers", OFFERS, body, {"status": "failed", "fejlkode": 3})
        day.add("no-times", TIMES, day.times(code, "fuld"), {"status": "failed", "fejlkode": 2})
        body = day.times(code, "straks-fuld", straksbooking=True)
        day.add("no-times-immediate", TIMES, body, FAILED)
    window = {"fra": "@slot:1/0", "til": "@slot:1/2+15"}
    day.add("times-window", TIMES, day.times("90001", "tre-former", **window), DONE | {"count": 18})
    one = {"sagsbehandlerId": "90002-tre-former-2"}
    day.add("times-caseworker", TIMES, day.times("90002", "tre-former", **window, **one), DONE | {"count": 9})
    for code in HEALTHY[:2]:
        day.add("times-unknown-offer", TIMES, day.times(code, "ukendt"), refused("unknown-offer"))
    for code in (DOWN, HANGS, GARBAGE):
        day.add("offers-although-booking-is-ill", OFFERS, day.query(code), DONE | {"count": 4})
        day.add("times-of-an-ill-system", TIMES, day.times(code, "samtale"), FAILED)


def bookings(day: DayBuilder) -> None:
    """Bookings that succeed at once."""
    for number in range(36):
        code = day.jobcenter()
        form = (IN_PERSON, TELEPHONE, DIGITAL)[number % 3]
        worker = None if number % 4 == 0 else number % 3 + 1
        day.add("book", BOOK, day.wish(code, "samtale", form, worker), DONE | {"form": form})
    for number in range(16):
        code = day.jobcenter()
        form = (IN_PERSON, TELEPHONE, DIGITAL)[number % 3]
        worker = None if number % 4 == 0 else number % 2 + 1
        day.add("immediate", IMMEDIATE, day.wish(code, "straks", form, worker), DONE | {"form": form})
    for _ in range(8):
        day.on_meeting("rebook", REBOOK, day.jobcenter(), DONE)
        day.on_meeting("accept", ACCEPT, day.jobcenter(), DONE, accepted=False)
        day.on_meeting("cancel", CANCEL, day.jobcenter(), DONE)
    for _ in range(4):
        whole_course(day, day.jobcenter())


def whole_course(day: DayBuilder, code: str) -> None:
    """One citizen books, moves, accepts and cancels a meeting."""
    citizen = day.citizen()
    first = day.add("life-book", BOOK, day.wish(code) | day.person(code, citizen), DONE)
    meeting = f"@booked:{first}"
    moved = day.add("life-rebook", REBOOK, day.move(code, meeting, citizen), DONE, after=first)
    person = day.person(code, citizen) | {"indkaldelseId": meeting}
    accepted = day.add("life-accept", ACCEPT, person, DONE, after=moved)
    day.add("life-cancel", CANCEL, person, DONE, after=accepted)


def not_offered(day: DayBuilder) -> None:
    """Refusals because of the times, the offers or the meetings themselves (R3)."""
    for number, code in enumerate(HEALTHY[:6]):
        body = day.wish(code, "samtale", TELEPHONE) | {"moedeform": DIGITAL}
        body["starttidspunkt"] = f"@slot:9/{2 if number % 2 else 7}"  # telephone only
        day.add("form-not-offered", BOOK, body, refused("form-not-offered"))
    for code in HEALTHY[:3]:
        body = day.wish(code) | {"starttidspunkt": "@slot:0/40"}
        day.add("time-not-offered", BOOK, body, refused("time-not-offered"))
        body = day.wish(code, "straks") | {"moedetilbudId": f"@offer:{code}/ukendt"}
        day.add("unknown-offer", IMMEDIATE, body, refused("unknown-offer"))
        taken_before(day, code)
    for _ in range(2):
        code = day.jobcenter()
        day.on_meeting(
            "rebook-not-possible", REBOOK, code, refused("rebooking-not-possible"), can_rebook=False
        )
        late: Line = {"cancel_by": "@now:-3600"}
        day.on_meeting("cancel-too-late", CANCEL, code, refused("cancellation-not-possible"), **late)
        day.on_meeting(
            "cancel-not-possible", CANCEL, code, refused("cancellation-not-possible"), can_cancel=False
        )
        nowhere = day.person(code) | {"indkaldelseId": "@invitation:none"}
        for type in (ACCEPT, CANCEL):
            day.add("unknown-booking", type, day.person(code) | nowhere, refused("unknown-booking"))
        body = day.move(code, "@invitation:none", day.citizen())
        day.add("rebook-unknown", REBOOK, body, refused("unknown-booking"))
    owner = day.on_meeting("accept-own", ACCEPT, "90007", DONE, accepted=False)
    body = day.person("90007") | {"indkaldelseId": day.lines[-1]["body"]["indkaldelseId"]}
    day.add("cancel-somebody-elses", CANCEL, body, refused("unknown-booking"), after=owner)


def taken_before(day: DayBuilder, code: str) -> None:
    """Another citizen has the caseworker's time. The broker refuses a booking, the booking system a rebooking."""
    citizen, other = day.citizen(), day.citizen()
    steps = [day.seed(code, f"@invitation:{len(day.lines)}-other", other)]
    taken = steps[0]["with"]["starts_at"]
    body = day.wish(code) | {"starttidspunkt": taken}
    day.add("taken-before", BOOK, body, refused("caseworker-not-offered"), before=steps)
    own = f"@invitation:{len(day.lines)}-mine"
    both = [day.seed(code, f"{own}-other", other), day.seed(code, own, citizen)]
    body = day.move(code, own, citizen) | {"starttidspunkt": both[0]["with"]["starts_at"]}
    day.add("rebook-to-taken", REBOOK, body, refused("slot-taken"), before=both)


def repeats(day: DayBuilder) -> None:
    """A repeated request has the same answer and one effect; the same id with another body is a conflict (R8)."""
    for number in range(8):
        code = day.jobcenter()
        type, kind = ((BOOK, "samtale"), (IMMEDIATE, "straks"))[number % 2]
        first = day.add("twice", type, day.wish(code, kind), DONE)
        again: Line = {"after": first} if number < 4 else {}  # the other copies are sent concurrently
        body = day.lines[-1]["body"] | {"requestId": f"@request:{first}"}
        day.add("twice-again", type, body, {"same_as": first}, **again)
    for number in range(4):
        code = day.jobcenter()
        first = day.add("once", BOOK, day.wish(code), DONE)
        change: Line = {"sagsbehandlerId": f"{code}-samtale-2"} if number % 2 else {"moedeform": DIGITAL}
        body = day.lines[-1]["body"] | {"requestId": f"@request:{first}"} | change
        day.add("other-body", BOOK, body, refused("conflict"), after=first)


def make() -> str:
    """The text of the file."""
    day = DayBuilder()
    set_up(day)
    parts = (
        queries,
        bookings,
        no_contact_group,
        invalid_messages,
        not_offered,
        refused_midway,
        failing_systems,
        short_faults,
    )
    for part in (*parts, uncertain_bookings, repeats, one_at_a_time, too_late, *REPORT_PARTS, at_noon):
        part(day)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in day.lines)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(make(), encoding="utf-8")
    print(f"{FILE}: {len(make().splitlines())} lines")
