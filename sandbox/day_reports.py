"""The part of the sample day about failure reports: how suppliers answer, and what citizens write.

Used by make_day.py, which says which system and supplier has which fault.
"""

from __future__ import annotations

from typing import Any

from sandbox.day_builder import (
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
    DayBuilder,
    Line,
    refused,
    report_on,
)

WEB_PAGE: Line = {"operation": "times", "action": "html", "times": None}
AFTER: Line = {"after_work": True}
TEXT = 'Jeg kunne ikke få en tid. Siden blev ved med at tænke, og så stod der: "Systemfejl".'
LETTERS = "Æblegrød på Ærø - 😀 "


def failed_booking(
    day: DayBuilder, name: str, code: str, supplier_fault: Line | None, end: str = "delivered", **report: Any
) -> str:
    """Add a booking that fails technically; `supplier_fault` is the supplier's answer to the report about it."""
    line_id = day.faulty(name, BOOK, code, FAILED, WEB_PAGE, supplier_fault=supplier_fault)
    line = day.lines[-1]
    line["report"] = report_on(line["body"], 4, end, **report)
    return line_id


def suppliers(day: DayBuilder) -> None:
    """The supplier's answers decide whether the report is delivered or dead (docs/architecture.md#outcomes)."""
    for number in range(3):
        failed_booking(day, "report", (ROEN, ROEN_CONTRACT, ROEN_WEBHOOK)[number], None)
    for name, fault in _RETRIED.items():
        failed_booking(day, f"report-{name}", ROEN_CONTRACT, fault)
    failed_booking(day, "report-500-after", ROEN_CONTRACT, _status(500) | AFTER, times=2)
    for name, (fault, cause) in _FINAL_REFUSALS.items():
        failed_booking(day, f"report-{name}", ROEN_CONTRACT, fault, "dead", cause=cause)


def _status(status: int, fault: str | None = None, **more: Any) -> Line:
    return {"action": "status", "status": status} | ({"fault": fault} if fault else {}) | more


_RETRIED: dict[str, Line] = {
    "cut-before": {"action": "reset"},
    "cut-after": {"action": "reset"} | AFTER,  # the retry has the same x-requestId and gets a 412
    "hangs-after": {"action": "hang", "seconds": 10} | AFTER,
    "500": _status(500),
    "login-page": {"action": "redirect"},
    "web-page": {"action": "html"},
    "had-it-before": _status(409, "allerede-modtaget") | AFTER,
}
_FINAL_REFUSALS: dict[str, tuple[Line, str]] = {
    "unknown-citizen": (_status(404, "ukendt-borger"), "unknown-citizen"),
    "rejected-message": (_status(400, "ugyldig-besked"), "rejected-message"),
    "422": (_status(422), "rejected"),
}


def webhooks(day: DayBuilder) -> None:
    """The same for the supplier that takes signed webhooks. A retry has the same webhook-id."""
    faults: dict[str, Line] = {
        "wrong-address": _status(404),  # without a fault: an error of the set-up, so the lane is parked
        "wrong-key": _status(401),
        "only-accepted": _status(202) | AFTER,  # any 2xx delivers a webhook
        "busy": _status(503, retry_after="1"),
        "login-page": {"action": "redirect"},
    }
    for name, fault in faults.items():
        failed_booking(day, f"webhook-{name}", ROEN_WEBHOOK, fault)
    failed_booking(day, "webhook-cut-after", ROEN_WEBHOOK, {"action": "reset"} | AFTER, times=2)
    failed_booking(day, "webhook-gone", ROEN_WEBHOOK, _status(410), "dead", cause="rejected")
    failed_booking(day, "webhook-500-all-day", ROEN_WEBHOOK, _status(500, times=None), "waiting")


def merges(day: DayBuilder) -> None:
    """Equal failures are merged into one report (R13). A repeated request is no new failure."""
    for code, kind in (("90001", "fuld"), ("90002", "fuld")):
        body = day.times(code, kind)
        first = last = day.add("refresh", TIMES, body, {"status": "failed", "fejlkode": 2})
        for _ in range(2):
            merged = {"end": "merged", "into": first}
            last = day.add("refresh-again", TIMES, body, FAILED | {"fejlkode": 2}, after=last, report=merged)
    first = failed_booking(day, "failed-twice", ROEN_CONTRACT, None)
    body = day.lines[-1]["body"] | {"requestId": f"@request:{first}"}
    day.add("failed-twice-again", BOOK, body, {"same_as": first}, after=first)


def report_body(day: DayBuilder, code: str, text: Any = TEXT, error: Any = 4, **more: Any) -> Line:
    """The body of a report.citizen."""
    return day.person(code) | {"fejlkode": error, "fejltekst": text} | more


def citizen_report(day: DayBuilder, name: str, body: Line, *, arrives: str | None = None, **more: Any) -> str:
    """Add a citizen's report that is accepted and delivered; `arrives` is the delivered text if it differs."""
    report = report_on(body, body["fejlkode"], fejltekst=arrives or body["fejltekst"]) | more.pop(
        "expected", {}
    )
    return day.add(name, REPORT, body, DONE, report=report, **more)


def citizens(day: DayBuilder) -> None:
    """Citizens' reports without a failed request (release note 3.2), with each fejlkode (R4) and long texts (R5)."""
    for number, code in enumerate(HEALTHY):
        ids = {"moedetilbudId": f"@offer:{code}/samtale"} if number % 2 else {}
        citizen_report(day, "citizen", report_body(day, code, error=2 + number % 3, **ids))
    citizen_report(
        day, "citizen-about-a-meeting", report_body(day, "90003", indkaldelseId="@invitation:some")
    )
    citizen_report(day, "citizen-immediate", report_body(day, "90006", straksbooking=True))
    citizen_report(day, "citizen-500", report_body(day, "90001", (LETTERS * 30)[:499] + "."))
    citizen_report(day, "citizen-500-in-nfc", report_body(day, "90005", "e\u0301" * 500), arrives="é" * 500)
    citizen_report(
        day,
        "citizen-lines",
        report_body(day, "90002", "Først dette.\r\nSå dette."),
        arrives="Først dette.\nSå dette.",
    )
    citizen_report(day, "citizen-late", report_body(day, "90007") | {"sentAt": "@now:-3600"})
    for _ in range(2):  # citizens' reports are never merged
        citizen_report(day, "citizen-again", report_body(day, "90004") | {"cpr": "@citizen:9999"})
    for _ in range(4):  # the supplier is down until noon
        citizen_report(day, "citizen-in-the-morning", report_body(day, DOWN))
        citizen_report(day, "citizen-in-the-morning", report_body(day, HANGS))
    first = citizen_report(day, "citizen-twice", report_body(day, "90003"))
    body = day.lines[-1]["body"] | {"requestId": f"@request:{first}"}
    day.add("citizen-twice-again", REPORT, body, {"same_as": first}, after=first)
    day.add("citizen-other-body", REPORT, body | {"fejlkode": 3}, refused("conflict"), after=first)
    lost = {"end": "dead", "supplier": "", "cause": "unroutable"}
    citizen_report(day, "citizen-unknown-jobcenter", report_body(day, "99999"), expected=lost)


def refusals(day: DayBuilder) -> None:
    """Invalid reports of citizens; the answer names the field."""
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
        day.add(f"citizen-{name}", REPORT, report_body(day, "90001", text), refused("invalid", field))
    for number, code in enumerate((1, 5, "4", None, True)):
        body = report_body(day, "90002", error=code)
        day.add(f"citizen-code-{number}", REPORT, body, refused("invalid", "fejlkode"))
    body = report_body(day, "90005", error=2, straksbooking=True)
    day.add("citizen-immediate-no-times", REPORT, body, refused("invalid", "fejlkode"))
    body = report_body(day, "90006") | {"cpr": "6101364001"}
    day.add("citizen-bad-cpr", REPORT, body, refused("invalid", "cpr"))


def joins(day: DayBuilder) -> None:
    """The report names the failed request, and the broker completes it from there (R14)."""
    for code in (ROEN_CONTRACT, ROEN_WEBHOOK, GARBAGE, DOWN):
        first = (
            failed_booking(day, "failed-then-told", code, None)
            if code not in (GARBAGE, DOWN)
            else _failed(day, code)
        )
        report_on_failed(day, "citizen-joined", first, after=first)
    meeting = day.on_meeting(
        "failed-rebook", REBOOK, ROEN_WEBHOOK, FAILED, {"operation": "find", "action": "html", "times": None}
    )
    report_on_failed(day, "citizen-joined-rebook", meeting, after=meeting)
    first = _failed(day, HANGS)
    when = {"system": "hassel", "operation": "times", "of": first}
    report_on_failed(day, "citizen-joined-before-the-end", first, when=when)
    none = report_body(day, ROEN, failedRequestId="@request:nowhere")
    citizen_report(day, "citizen-joins-nothing", none)
    for code in (ROEN_CONTRACT, ROEN_WEBHOOK):
        first = failed_booking(day, "failed-for-another", code, None)
        body = report_body(day, code, failedRequestId=f"@request:{first}")
        citizen_report(day, "citizen-joins-anothers", body, after=first)


def _failed(day: DayBuilder, code: str) -> str:
    return day.add("failed-then-told", BOOK, day.wish(code), FAILED)


def report_on_failed(day: DayBuilder, name: str, first: str, **more: Any) -> str:
    """Add the report of the citizen whose line `first` fails. It names that request only."""
    failed = next(line for line in day.lines if line["id"] == first)
    body = report_body(day, failed["body"]["jobcenterkode"], failedRequestId=f"@request:{first}")
    body["cpr"] = failed["body"]["cpr"]
    known = ("moedetilbudId", "indkaldelseId")
    filled = {n: failed["body"][n] for n in known if n in failed["body"]}
    filled |= {"requestId": f"@request:{first}", "requestType": failed["type"]}
    return citizen_report(day, name, body, expected=filled, **more)


REPORT_PARTS = (suppliers, webhooks, merges, citizens, refusals, joins)
