"""Enrichment: a failure with everything that a report to the supplier needs, taken at the moment of failure.

The facts are sealed into the ledger in the commit that settles the request (DESIGN 6); the texts are for a person
at the supplier, never a stack trace and never words from outside.
"""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

from broker.errors import Seen
from broker.ledger.model import Ending
from broker.settle import Settlement
from schemas.codes import ErrorCode, Origin
from schemas.envelope import Request

COPENHAGEN = ZoneInfo("Europe/Copenhagen")
MOST_TEXT = 500
"""Fejltekst is String(500) in the contract (domain.md 1.3)."""

STEPS_DA = {
    "offers": "hentning af mødetilbud",
    "times": "hentning af mødetider",
    "find": "opslag af booking",
    "reserve": "reservation af mødetid",
    "create": "oprettelse af booking",
    "accept": "accept af booking",
    "cancel": "aflysning af booking",
}
CODES_DA = {ErrorCode.NO_TIMES: "Ingen mødetider.", ErrorCode.NO_OFFERS: "Ingen mødetilbud."}


def ending_of(message: Request, settlement: Settlement, *, traceparent: str | None) -> Ending:
    """A settlement as the ledger stores it: the answer, its facts in clear, and what a report would need."""
    answer = settlement.answer
    return Ending(
        status=answer.status,
        answer=answer.to_json(),
        reason=answer.reason.value if answer.reason else None,
        error_code=int(answer.error_code) if answer.error_code else None,
        last_sent_at=settlement.last_sent_at,
        failure=failure_of(message, settlement, traceparent=traceparent),
    )


def failure_of(message: Request, settlement: Settlement, *, traceparent: str | None) -> bytes | None:
    """The seven fields of the release note and what routes them, as JSON in the clear: for sealing only.

    None when the request did not fail. `egetAnsvar` is true when our own limits, set-up or bugs failed it.
    """
    code = settlement.answer.error_code
    if code is None:
        return None
    facts: dict[str, Any] = {
        "cpr": message.cpr.reveal(),
        "moedetilbudId": _text(getattr(message, "offer_id", None)),
        "indkaldelseId": _text(getattr(message, "invitation_id", None)),
        "fejlkode": int(code),
        "fejltekst": text_of(code, settlement.seen),
        "fejlOphav": {"id": int(Origin.JOBNET), "navn": "Jobnet"},
        "fejlTidspunkt": settlement.answer.answered_at.astimezone(COPENHAGEN).isoformat(),
        "type": message.TYPE,
        "jobcenterkode": message.jobcenter_code,
        "traceparent": traceparent,
        "aarsag": settlement.cause,
        "egetAnsvar": settlement.ours,
    }
    return json.dumps({k: v for k, v in facts.items() if v is not None}, ensure_ascii=False).encode()


def text_of(code: ErrorCode, seen: Seen | None) -> str:
    """What happened, in Danish, for a person at the supplier: which step, what was seen, how long."""
    opening = CODES_DA.get(code, "Systemfejl i kontakten med jobcentrets bookingsystem.")
    if seen is None:
        return opening
    step = STEPS_DA.get(seen.step, seen.step)
    return f"{opening} Trin: {step}. Set: {seen.what}. Varighed: {seen.milliseconds} ms."[:MOST_TEXT]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
