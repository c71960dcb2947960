"""The part of the sample day in which booking systems fail: late refusals, outages, short faults, uncertain results.

Used by make_day.py, which says which system has which fault.
"""

from __future__ import annotations

from sandbox.day_builder import (
    ACCEPT,
    BOOK,
    CANCEL,
    DONE,
    DOWN,
    FAILED,
    GARBAGE,
    HANGS,
    IMMEDIATE,
    REBOOK,
    ROEN,
    DayBuilder,
    Line,
    automatic,
    citizen_fault,
    control,
    refused,
)


def refused_midway(day: DayBuilder) -> None:
    """The booking system refuses during the booking, with a fault of docs/contract.md#faults."""
    for code in ("90001", "90005", ROEN, ROEN):
        day.faulty(
            "slot-taken-meanwhile",
            BOOK,
            code,
            refused("slot-taken"),
            {"operation": "reserve", "action": "snatch"},
        )
    day.faulty(
        "slot-taken-meanwhile",
        IMMEDIATE,
        ROEN,
        refused("slot-taken"),
        {"operation": "reserve", "action": "snatch"},
    )
    for operation, fault, reason, status in (
        ("create", "reservation-udloebet", "reservation-expired", 409),
        ("create", "tid-optaget", "slot-taken", 409),
        ("reserve", "moedeform-ikke-mulig", "form-not-possible", 409),
        ("times", "ukendt-borger", "unknown-citizen", 404),
    ):
        step = {"operation": operation, "action": "status", "status": status, "fault": fault}
        day.faulty(f"fault-{fault}", BOOK, ROEN, refused(reason), step)


def failing_systems(day: DayBuilder) -> None:
    """One system is down, one hangs, one answers garbage: fejlkode 4. The other systems are not affected."""
    for code, name in ((DOWN, "down"), (HANGS, "hangs"), (GARBAGE, "garbage")):
        for type, kind in ((BOOK, "samtale"), (BOOK, "tre-former"), (IMMEDIATE, "straks")):
            day.add(f"{name}-book", type, day.wish(code, kind), FAILED)
        for number in range(2):
            body = day.move(code, f"@invitation:{name}-{number}", day.citizen())
            day.add(f"{name}-rebook", REBOOK, body, FAILED)
    for type in (ACCEPT, CANCEL):
        body = day.person(DOWN) | {"indkaldelseId": "@invitation:down"}
        day.add("down", type, body, FAILED)


AFTER: Line = {"after_work": True}


def short_faults(day: DayBuilder) -> None:
    """Roen fails for one citizen for a short time: what can be looked up or retried before the deadline succeeds."""
    step: Line
    for action in ("reset", "reset", "half", "garbage", "html", "hang"):
        day.faulty(
            f"booked-then-{action}", BOOK, ROEN, DONE, {"operation": "create", "action": action} | AFTER
        )
    for status in (500, 200, 408):
        step = {"operation": "create", "action": "status", "status": status} | AFTER
        day.faulty(f"booked-then-{status}", BOOK, ROEN, DONE, step)
    day.faulty("booked-then-reset", IMMEDIATE, ROEN, DONE, {"operation": "create", "action": "reset"} | AFTER)
    for type, operation in ((REBOOK, "create"), (ACCEPT, "accept"), (CANCEL, "cancel")):
        step = {"operation": operation, "action": "reset"} | AFTER
        day.on_meeting(f"{operation}-then-reset", type, ROEN, DONE, step, accepted=type != ACCEPT)
    day.faulty("cut-before-booked", BOOK, ROEN, DONE, {"operation": "create", "action": "reset"})
    busy: Line = {"action": "status", "status": 503}
    for operation in ("times", "reserve", "create"):
        day.faulty(f"busy-at-{operation}", BOOK, ROEN, DONE, {"operation": operation} | busy)
    day.faulty(
        "told-to-wait",
        BOOK,
        "90005",
        DONE,
        {"operation": "create"} | busy | {"status": 429, "retry_after": "1"},
    )
    day.faulty("reserve-cut", BOOK, ROEN, DONE, {"operation": "reserve", "action": "reset"} | AFTER)
    for action in ("html", "redirect", "wrong_shape", "huge", "bomb"):
        step = {"operation": "times", "action": action, "times": None}
        day.faulty(f"times-{action}", BOOK, ROEN, FAILED, step)
    for status in (401, 404, 405):
        step = {"operation": "reserve", "action": "status", "status": status, "times": None}
        # A wrong address or credential is an error in the broker's set-up, so it is not reported to the supplier.
        day.faulty(f"reserve-{status}", BOOK, ROEN, FAILED, step, report=None)


def uncertain_bookings(day: DayBuilder) -> None:
    """The result is not known in time: the answer is `uncertain`, the final outcome comes on jobnet.outcomes."""
    silent: Line = {"operation": "find", "action": "status", "status": 503, "times": None}
    until_cleared = {"status": "uncertain"}
    for type, final in ((BOOK, "done"), (IMMEDIATE, "done"), (BOOK, "failed"), (IMMEDIATE, "failed")):
        create: Line = {
            "operation": "create",
            "action": "reset",
            "times": None,
            "after_work": final == "done",
        }
        line_id = day.faulty(f"uncertain-then-{final}", type, ROEN, until_cleared, create, silent)
        add_recovery(day, line_id, final)
    for type, operation in ((REBOOK, "create"), (ACCEPT, "accept"), (CANCEL, "cancel")):
        for final in ("done", "failed"):
            cut = {"operation": operation, "action": "reset", "times": None, "after_work": final == "done"}
            line_id = day.on_meeting(
                f"uncertain-{operation}-then-{final}", type, ROEN, until_cleared, cut, accepted=type != ACCEPT
            )
            citizen = int(day.lines[-1]["body"]["cpr"].partition(":")[2])
            day.lines[-1]["before"].append(citizen_fault(ROEN, citizen, **silent))
            if type == REBOOK:  # a rebooking reads the meeting before it moves it
                day.lines[-1]["before"].insert(
                    -1, citizen_fault(ROEN, citizen, operation="find", action="ok")
                )
            add_recovery(day, line_id, final)
    blocked_by_uncertain(day, silent)


def add_recovery(day: DayBuilder, line_id: str, final: str) -> None:
    """Let the system work again for this citizen when the line has been answered, and expect the final outcome."""
    line = day.lines[-1]
    line["afterwards"] = [control(ROEN, "clear", {"label": line["before"][-1]["with"]["label"]})]
    line["final"] = {"outcome": final}
    if final == "failed":
        line["final"]["fejlkode"] = 4
        line["report"] = automatic(line["body"], 4)


def blocked_by_uncertain(day: DayBuilder, silent: Line) -> None:
    """While a citizen's booking is uncertain, a second one is refused (R9). Then the first booking is found."""
    create = {"operation": "create", "action": "reset", "times": None} | AFTER
    first = day.faulty("uncertain-holds", BOOK, ROEN, {"status": "uncertain"}, create, silent)
    line = day.lines[-1]
    line["final"] = {"outcome": "done"}
    body = day.wish(ROEN) | {"cpr": line["body"]["cpr"]}
    clear = control(ROEN, "clear", {"label": line["before"][-1]["with"]["label"]})
    expect = refused("earlier-booking-uncertain")
    day.add("held-by-uncertain", BOOK, body, expect, after=first, afterwards=[clear])


def one_at_a_time(day: DayBuilder) -> None:
    """A citizen's second booking waits for the first, or is refused if its deadline is too short for that (R9)."""
    slow = {"operation": "reserve", "action": "slow", "seconds": 1.2}
    # Longer than the deadline of the second booking.
    stuck = {"operation": "reserve", "action": "hang", "times": None, "seconds": 10}
    for number in range(5):
        waits = number < 3
        first = day.faulty("first-of-two", BOOK, ROEN, DONE, slow if waits else stuck)
        line = day.lines[-1]
        first_call = {"system": "roen", "operation": "reserve", "of": first}
        body = day.wish(ROEN) | {"cpr": line["body"]["cpr"]}
        if waits:
            day.add("second-waits", BOOK, body, DONE, when=first_call)
        else:
            clear = control(ROEN, "clear", {"label": line["before"][-1]["with"]["label"]})
            body["deadline"] = "@now:+2"
            day.add("second-is-busy", BOOK, body, refused("busy"), when=first_call, afterwards=[clear])
