"""The part of the sample day that is refused before any call: no kontaktgruppe, invalid messages, too late.

Used by make_day.py.
"""

from __future__ import annotations

from typing import Any

from sandbox.day_builder import BOOK, CANCEL, HEALTHY, IMMEDIATE, OFFERS, REBOOK, TIMES, DayBuilder, refused


def no_contact_group(day: DayBuilder) -> None:
    """No kontaktgruppe, no booking (R1). Cancel and accept need none; see `bookings` in make_day.py."""
    for absent in ({"kontaktgruppe": None}, {"kontaktgruppe": ""}):
        code = day.jobcenter()
        bodies = {
            OFFERS: day.query(code),
            TIMES: day.times(code, "samtale"),
            BOOK: day.wish(code),
            IMMEDIATE: day.wish(code, "straks"),
            REBOOK: day.move(code, "@invitation:none", day.citizen()),
        }
        for type, body in bodies.items():
            day.add("no-contact-group", type, body | absent, refused("no-contact-group"))
    body = day.wish("90001")
    del body["kontaktgruppe"]
    day.add("no-contact-group", BOOK, body, refused("no-contact-group"))


BAD_CPRS: dict[str, Any] = {
    "short": "010136400",
    "long": "01013640010",
    "letters": "01013640AB",
    "dash": "010136-4001",
    "spaces": " 0101364001",
    "day-0": "0001364001",
    "day-32": "3201364001",
    "month-13": "0113364001",
    "31-april": "3104364001",
    "leap-day": "2902314001",
    "replacement": "6101364001",
    "unknown": "0000000000",
    "number": 1012304001,
    "null": None,
    "other-digits": "٠١٠١٣٦٤٠٠١",
}


def invalid_messages(day: DayBuilder) -> None:
    """The answer names the invalid field (R6, R7), whichever queue the message came on."""
    for number, (what, cpr) in enumerate(BAD_CPRS.items()):
        body = day.wish("90001") if number % 2 else day.query("90002")
        day.add(f"cpr-{what}", BOOK if number % 2 else OFFERS, body | {"cpr": cpr}, refused("invalid", "cpr"))
    wrong: list[tuple[str, dict[str, Any], str]] = [
        (BOOK, {"moedeform": "brev"}, "moedeform"),
        (BOOK, {"starttidspunkt": "2030-01-01T10:00:00"}, "starttidspunkt"),
        (BOOK, {"moedetilbudId": "17"}, "moedetilbudId"),
        (BOOK, {"indkaldelseId": "@invitation:none"}, "indkaldelseId"),
        (BOOK, {"jobcenterkode": "123"}, "jobcenterkode"),
        (BOOK, {"sentAt": "@now:+600"}, "sentAt"),
        (BOOK, {"requestId": "17"}, "requestId"),
        (TIMES, {"fra": "@slot:2/0", "til": "@slot:1/0"}, "til"),
        (TIMES, {"straksbooking": "ja"}, "straksbooking"),
    ]
    for type, change, field in wrong:
        body = day.wish("90003") if type == BOOK else day.times("90003", "samtale")
        day.add(f"bad-{field}", type, body | change, refused("invalid", field))
    for field in ("cpr", "moedetilbudId", "starttidspunkt", "moedeform"):
        body = day.wish("90004")
        del body[field]
        day.add(f"without-{field}", BOOK, body, refused("invalid", field))
    key = {"routing_key": "booking.book"}
    day.add("unknown-type", "booking.teleport.v1", day.wish("90005"), refused("invalid", "type"), **key)
    day.add("unknown-version", "booking.book.v7", day.wish("90005"), refused("invalid", "type"))
    day.add("wrong-queue", OFFERS, day.query("90005"), refused("invalid", "type"), **key)
    day.add("not-json", BOOK, {}, refused("invalid"), raw='{"cpr": ')
    day.add("empty", OFFERS, {}, refused("invalid"), raw="")
    for type in (OFFERS, TIMES, BOOK, CANCEL):
        body = day.wish("90006") if type == BOOK else day.times("90006", "samtale")
        body = body | {"indkaldelseId": "@invitation:none"} if type == CANCEL else body
        if type == CANCEL:
            del body["moedetilbudId"]
        day.add("unknown-jobcenter", type, body | {"jobcenterkode": "99999"}, refused("unknown-jobcenter"))


def too_late(day: DayBuilder) -> None:
    """A request whose deadline has passed leads to no call."""
    late = {"sentAt": "@now:-60"}
    expect = {"status": "expired"}
    for code in HEALTHY[:2]:
        day.add("too-late", OFFERS, day.query(code) | late, expect)
        day.add("too-late", TIMES, day.times(code, "samtale") | late, expect)
        day.add("too-late", BOOK, day.wish(code) | late, expect)
        person = day.person(code) | {"indkaldelseId": "@invitation:none"}
        day.add("too-late", CANCEL, person | {"deadline": "@now:-1"}, expect)
