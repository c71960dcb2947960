"""A supplier's inbox as a page shows it: all seven fields of each report, the CPR number masked, the newest first.

The suppliers' books hold a token in place of the CPR number. It is shown on request, for citizens that the sandbox
itself invented: they are recognised by their token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sandbox.books import citizen_token
from sandbox.fejlmelding import SIGNATURE
from sandbox.jobnet.citizens import CITIZENS
from sandbox.jobnet.danish import when
from sandbox.samples import invented_cpr
from sandbox.servers import TEST_CITIZEN
from sandbox.system_layout import WEBHOOK

MOST_SHOWN = 50
MASKED = "••••••-••••"
DAY_CITIZENS = 10_000  # as many as the sample day names
CODES = {2: "no times", 3: "no offers", 4: "other problem seen on Jobnet"}


@dataclass(frozen=True)
class ShownReport:
    """One report as it arrived."""

    identity: str
    arrived: str
    times: int
    jobcenter: str
    kind: str
    signature: str
    fields: Mapping[str, str]
    token: str


def shown_reports(inbox: Iterable[Mapping[str, Any]], format_: str) -> list[ShownReport]:
    """The newest reports of an inbox, at most MOST_SHOWN."""
    newest = sorted(inbox, key=lambda report: _arrived(report), reverse=True)
    return [_shown(report, format_) for report in newest[:MOST_SHOWN]]


def refused_calls(calls: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The newest calls that were not taken in: when, with what status, and whether their signature was wrong."""
    bad = [call for call in calls if call["status"] != 204]
    return [
        {
            "at": when(call["at"]),
            "status": call["status"] or "cut",
            "forged": SIGNATURE in call["problems"],
        }
        for call in reversed(bad[-MOST_SHOWN:])
    ]


def cpr_of(token: str) -> str | None:
    """The CPR number, with its hyphen, of an invented citizen; None for somebody else's token."""
    cpr = _invented().get(token)
    return f"{cpr[:6]}-{cpr[6:]}" if cpr else None


@cache
def _invented() -> dict[str, str]:
    numbers = [TEST_CITIZEN, *(citizen.cpr for citizen in CITIZENS.values())]
    numbers += [invented_cpr(number) for number in range(DAY_CITIZENS)]
    return {citizen_token(cpr): cpr for cpr in numbers}


def _arrived(report: Mapping[str, Any]) -> str:
    return str(report["arrivals"][0]["at"])


def _shown(report: Mapping[str, Any], format_: str) -> ShownReport:
    code, origin = report["fejlkode"], report["fejlOphav"]
    fields = {
        "moedetilbudId": report["moedetilbudId"] or "none",
        "indkaldelseId": report["indkaldelseId"] or "none",
        "fejlkode": f"{code} ({CODES.get(code, 'unknown')})",
        "fejltekst": report["fejltekst"],
        "fejlOphav": f"{origin['navn']} ({origin['id']})",
        "fejlTidspunkt": report["fejlTidspunkt"],
    }
    # Whatever is in a webhook's inbox has passed the verifier: a wrong signature is answered 401 and kept out.
    signature = "verified" if format_ == WEBHOOK else "none in this format"
    kinds = {"citizen": "written by the citizen", "automatic": "made by the broker"}
    return ShownReport(
        report["identity"],
        when(_arrived(report)),
        report["times"],
        report["jobcenterkode"],
        kinds.get(report["kind"] or "", ""),
        signature,
        fields,
        report["citizen"],
    )
