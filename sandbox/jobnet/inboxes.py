"""The content of the page of a supplier's inbox: all fields of each report, the CPR number masked, the newest first.

The inbox contains a token instead of the CPR number. The page can show the numbers of citizens that the sandbox
invented, because it can compute their tokens.
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

MAX_SHOWN = 50
MASKED = "••••••-••••"
# The number of citizens in the sample day.
DAY_CITIZENS = 10_000
CODES = {2: "no times", 3: "no offers", 4: "other problem seen on Jobnet"}


@dataclass(frozen=True)
class ShownReport:
    """One report as the page shows it."""

    identity: str
    arrived: str
    times: int
    jobcenter: str
    kind: str
    signature: str
    fields: Mapping[str, str]
    token: str


def shown_reports(inbox: Iterable[Mapping[str, Any]], format_: str) -> list[ShownReport]:
    """The newest reports of an inbox, at most MAX_SHOWN."""
    newest = sorted(inbox, key=lambda report: _arrived(report), reverse=True)
    return [_shown(report, format_) for report in newest[:MAX_SHOWN]]


def refused_calls(calls: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The newest calls that were not accepted: time, status, and whether the signature was wrong."""
    refused = [call for call in calls if call["status"] != 204]
    return [
        {
            "at": when(call["at"]),
            "status": call["status"] or "cut",
            "forged": SIGNATURE in call["problems"],
        }
        for call in reversed(refused[-MAX_SHOWN:])
    ]


def cpr_of(token: str) -> str | None:
    """The CPR number, with a hyphen, of an invented citizen; None for any other token."""
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
    # Every report in a webhook's inbox was verified: a call with a wrong signature gets 401.
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
