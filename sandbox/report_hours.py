"""The part of the sample day that is about failure reports: what suppliers do with them, and what citizens write.

Used by make_day.py, which says how systems and suppliers are shared out.
"""

from __future__ import annotations

from typing import Any

from sandbox.draft import (
    BOOK,
    DONE,
    DOWN,
    FAILED,
    GARBAGE,
    HANGS,
    HEALTHY,
    REBOOK,
    REPORT,
    ROEN,
    ROEN_CONTRACT,
    ROEN_WEBHOOK,
    TIMES,
    Day,
    Line,
    refused,
    report_on,
)

WEB_PAGE: Line = {"operation": "times", "action": "html", "times": None}
AFTER: Line = {"after_work": True}
TEXT = 'Jeg kunne ikke få en tid. Siden blev ved med at tænke, og så stod der: "Systemfejl".'
LETTERS = "Æblegrød på Ærø - 😀 "


def failing(day: Day, name: str, code: str, post: Line | None, end: str = "delivered", **report: Any) -> str:
    """A booking that fails technically, and what the supplier does with the report about it."""
    line_id = day.ill(name, BOOK, code, FAILED, WEB_PAGE, post=post)
    line = day.lines[-1]
    line["report"] = report_on(line["body"], 4, end, **report)
    return line_id


def suppliers(day: Day) -> None:
    """DESIGN 5, third column: only a 204 from the right place is delivered; what is answered for good is dead."""
    for number in range(3):
        failing(day, "report", (ROEN, ROEN_CONTRACT, ROEN_WEBHOOK)[number], None)
    for name, post in _FALTERS.items():
        failing(day, f"report-{name}", ROEN_CONTRACT, post)
    failing(day, "report-500-after", ROEN_CONTRACT, _status(500) | AFTER, times=2)
    for name, (post, cause) in _NOES.items():
        failing(day, f"report-{name}", ROEN_CONTRACT, post, "dead", cause=cause)


def _status(status: int, fault: str | None = None, **more: Any) -> Line:
    return {"action": "status", "status": status} | ({"fault": fault} if fault else {}) | more


_FALTERS: dict[str, Line] = {
    "cut-before": {"action": "reset"},
    "cut-after": {"action": "reset"} | AFTER,  # the same x-requestId again, and a 412
    "hangs-after": {"action": "hang", "seconds": 10} | AFTER,
    "500": _status(500),
    "login-page": {"action": "redirect"},
    "web-page": {"action": "html"},
    "had-it-before": _status(409, "allerede-modtaget") | AFTER,
}
_NOES: dict[str, tuple[Line, str]] = {
    "unknown-citizen": (_status(404, "ukendt-borger"), "unknown-citizen"),
    "rejected-message": (_status(400, "ugyldig-besked"), "rejected-message"),
    "422": (_status(422), "rejected"),
}


def webhooks(day: Day) -> None:
    """The same for the supplier that takes signed webhooks; a repeat has the same webhook-id."""
    falters: dict[str, Line] = {
        "wrong-address": _status(404),  # bare: the lane is parked, no report is to blame
        "wrong-key": _status(401),
        "only-accepted": _status(202),
        "busy": _status(503, retry_after="1"),
        "login-page": {"action": "redirect"},
    }
    for name, post in falters.items():
        failing(day, f"webhook-{name}", ROEN_WEBHOOK, post)
    failing(day, "webhook-cut-after", ROEN_WEBHOOK, {"action": "reset"} | AFTER, times=2)
    failing(day, "webhook-gone", ROEN_WEBHOOK, _status(410), "dead", cause="rejected")
    failing(day, "webhook-500-all-day", ROEN_WEBHOOK, _status(500, times=None), "waiting")


def merges(day: Day) -> None:
    """People press refresh: equal failures are one report. The same request again is no new failure."""
    for code, kind in (("90001", "fuld"), ("90002", "fuld")):
        body = day.times(code, kind)
        first = last = day.add("refresh", TIMES, body, {"status": "failed", "fejlkode": 2})
        for _ in range(2):
            merged = {"end": "merged", "into": first}
            last = day.add("refresh-again", TIMES, body, FAILED | {"fejlkode": 2}, after=last, report=merged)
    first = failing(day, "failed-twice", ROEN_CONTRACT, None)
    body = day.lines[-1]["body"] | {"requestId": f"@request:{first}"}
    day.add("failed-twice-again", BOOK, body, {"same_as": first}, after=first)


def words(day: Day, code: str, text: Any = TEXT, error: Any = 4, **more: Any) -> Line:
    """The body of a citizen's own report."""
    return day.person(code) | {"fejlkode": error, "fejltekst": text} | more


def told(day: Day, name: str, body: Line, *, arrives: str | None = None, **more: Any) -> str:
    """A citizen's report that is taken in, and delivered in the citizen's own words."""
    report = report_on(body, body["fejlkode"], fejltekst=arrives or body["fejltekst"]) | more.pop("about", {})
    return day.add(name, REPORT, body, DONE, report=report, **more)


def citizens(day: Day) -> None:
    """Release note 3.2, rules 4 and 5: without a failed request, long ones, odd ones."""
    for number, code in enumerate(HEALTHY):
        ids = {"moedetilbudId": f"@offer:{code}/samtale"} if number % 2 else {}
        told(day, "citizen", words(day, code, error=2 + number % 3, **ids))
    told(day, "citizen-about-a-meeting", words(day, "90003", indkaldelseId="@invitation:some"))
    told(day, "citizen-immediate", words(day, "90006", straksbooking=True))
    told(day, "citizen-500", words(day, "90001", (LETTERS * 30)[:499] + "."))
    told(day, "citizen-500-in-nfc", words(day, "90005", "e\u0301" * 500), arrives="é" * 500)
    told(
        day,
        "citizen-lines",
        words(day, "90002", "Først dette.\r\nSå dette."),
        arrives="Først dette.\nSå dette.",
    )
    told(day, "citizen-late", words(day, "90007") | {"sentAt": "@now:-3600"})
    for _ in range(2):  # own words are never merged away
        told(day, "citizen-again", words(day, "90004") | {"cpr": "@citizen:9999"})
    for _ in range(4):  # their supplier is down until noon
        told(day, "citizen-in-the-morning", words(day, DOWN))
        told(day, "citizen-in-the-morning", words(day, HANGS))
    first = told(day, "citizen-twice", words(day, "90003"))
    body = day.lines[-1]["body"] | {"requestId": f"@request:{first}"}
    day.add("citizen-twice-again", REPORT, body, {"same_as": first}, after=first)
    day.add("citizen-other-body", REPORT, body | {"fejlkode": 3}, refused("conflict"), after=first)
    lost = {"end": "dead", "supplier": "", "cause": "unroutable"}
    told(day, "citizen-unknown-jobcenter", words(day, "99999"), about=lost)


def refusals(day: Day) -> None:
    """What a citizen's report may not be, by name of field."""
    wrong: list[tuple[str, Any, Any]] = [
        ("501", "x" * 501, "fejltekst"),
        ("501-in-nfc", "é" * 501, "fejltekst"),
        ("empty", "", "fejltekst"),
        ("blank", " \n ", "fejltekst"),
        ("null", None, "fejltekst"),
        ("bell", "Hej\u0007", "fejltekst"),
        ("tab", "Hej\tdu", "fejltekst"),
        ("escape", "\u001b[31mHej", "fejltekst"),
    ]
    for name, text, field in wrong:
        day.add(f"citizen-{name}", REPORT, words(day, "90001", text), refused("invalid", field))
    for number, code in enumerate((1, 5, "4", None, True)):
        body = words(day, "90002", error=code)
        day.add(f"citizen-code-{number}", REPORT, body, refused("invalid", "fejlkode"))
    body = words(day, "90005", error=2, straksbooking=True)
    day.add("citizen-immediate-no-times", REPORT, body, refused("invalid", "fejlkode"))
    body = words(day, "90006") | {"cpr": "6101364001"}
    day.add("citizen-bad-cpr", REPORT, body, refused("invalid", "cpr"))


def joins(day: Day) -> None:
    """A report names the failed request: the broker fills in what the citizen did not say."""
    for code in (ROEN_CONTRACT, ROEN_WEBHOOK, GARBAGE, DOWN):
        first = (
            failing(day, "failed-then-told", code, None)
            if code not in (GARBAGE, DOWN)
            else _failed(day, code)
        )
        about_it(day, "citizen-joined", first, after=first)
    meeting = day.on_meeting(
        "failed-rebook", REBOOK, ROEN_WEBHOOK, FAILED, {"operation": "find", "action": "html", "times": None}
    )
    about_it(day, "citizen-joined-rebook", meeting, after=meeting)
    first = _failed(day, HANGS)
    when = {"system": "hassel", "operation": "times", "of": first}
    about_it(day, "citizen-joined-before-the-end", first, when=when)
    none = words(day, ROEN, failedRequestId="@request:nowhere")
    told(day, "citizen-joins-nothing", none)
    for code in (ROEN_CONTRACT, ROEN_WEBHOOK):
        first = failing(day, "failed-for-another", code, None)
        theirs = words(day, code, failedRequestId=f"@request:{first}")
        told(day, "citizen-joins-anothers", theirs, after=first)


def _failed(day: Day, code: str) -> str:
    return day.add("failed-then-told", BOOK, day.wish(code), FAILED)


def about_it(day: Day, name: str, first: str, **more: Any) -> str:
    """The report of the citizen whose line `first` fails, with nothing but its id."""
    failed = next(line for line in day.lines if line["id"] == first)
    body = words(day, failed["body"]["jobcenterkode"], failedRequestId=f"@request:{first}")
    body["cpr"] = failed["body"]["cpr"]
    known = ("moedetilbudId", "indkaldelseId")
    filled = {n: failed["body"][n] for n in known if n in failed["body"]}
    filled |= {"requestId": f"@request:{first}", "requestType": failed["type"]}
    return told(day, name, body, about=filled, **more)


REPORT_HOURS = (suppliers, webhooks, merges, citizens, refusals, joins)
