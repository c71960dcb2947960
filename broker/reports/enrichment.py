"""Enrichment: makes a failure into a report with all that the supplier needs, at the moment of failure.

Builds the answer that the ledger stores and the report that it stores in the same commit
(docs/architecture.md#reports). The texts are for a person at the supplier: no stack trace, no text from outside.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from broker.errors import CallFacts
from broker.ledger.model import NewReport, StoredAnswer
from broker.settle import NOT_BOOKED, Settlement
from config.directory import Directory
from schemas.answers import Answer
from schemas.codes import ErrorCode, ReportKind, Status
from schemas.envelope import Request
from schemas.failure_reports import COPENHAGEN, Report
from schemas.ids import report_of
from schemas.requests import Book, CitizenReport, QueryOffers, QueryTimes, Rebook

MOST_TEXT = 500
"""Characters; Fejltekst is String(500) in the contract (docs/contract.md#fejlmelding)."""

STEPS_DA = {
    "offers": "hentning af mødetilbud",
    "times": "hentning af mødetider",
    "find": "opslag af booking",
    "reserve": "reservation af mødetid",
    "create": "oprettelse af booking",
    "accept": "accept af booking",
    "cancel": "aflysning af booking",
}
SYSTEM_ERROR_DA = "Systemfejl i kontakten med jobcentrets bookingsystem."
NOT_BOOKED_DA = (
    f"{SYSTEM_ERROR_DA} Kaldet blev sendt, men ikke besvaret, og det er siden set, at det ikke er udført."
)
OPENINGS_DA = {ErrorCode.NO_TIMES: "Ingen mødetider.", ErrorCode.NO_OFFERS: "Ingen mødetilbud."}
FAILURES_DA = {
    "timeout": "intet svar inden for tiden",
    "reset": "forbindelsen blev afbrudt",
    "connect-refused": "forbindelsen blev afvist",
    "connect-failed": "der kunne ikke skabes forbindelse",
    "connect-timeout": "der kunne ikke skabes forbindelse inden for tiden",
    "dns": "adressen kunne ikke findes",
    "redirect": "svaret var en viderestilling",
    "html": "svaret var en webside",
    "body": "svaret brød kontrakten",
    "encoding": "svaret kunne ikke læses",
    "too-large": "svaret var for stort",
    "not-http": "svaret var ikke HTTP",
    "tls": "den sikre forbindelse kunne ikke oprettes",
    "certificate": "systemets certifikat blev ikke godkendt",
    "certificate-expired": "systemets certifikat er udløbet",
    "certificate-not-yet-valid": "systemets certifikat gælder ikke endnu",
    "certificate-wrong-host": "systemets certifikat gælder ikke for adressen",
    "certificate-unknown-issuer": "systemets certifikat har en ukendt udsteder",
    "client-certificate-wanted": "systemet kræver et klientcertifikat",
    "client-certificate-expired": "systemet afviste Jobnets klientcertifikat, fordi det er udløbet",
    "client-certificate-refused": "systemet afviste Jobnets klientcertifikat",
    "tls-files": "Jobnets certifikat til systemet kunne ikke læses",
    "bearer-token": "Jobnets adgangsnøgle til systemet kunne ikke læses",
    "retry-after": "systemet bad om at vente",
}


@dataclass(frozen=True, slots=True)
class Addressee:
    """The supplier of a jobcenter ("" if the directory names none) and the fejlkoder that it wants reported."""

    supplier: str
    wanted: Collection[int] = ()

    @classmethod
    def of(cls, directory: Directory, supplier: str) -> Addressee:
        """From the directory; a supplier that is no longer in it gets no automatic reports."""
        known = directory.suppliers.get(supplier)
        return cls(supplier, known.report_codes if known else ())


NOBODY = Addressee("")


def stored_answer_of(
    message: Request, settlement: Settlement, addressee: Addressee, *, traceparent: str | None
) -> StoredAnswer:
    """The settlement as the ledger stores it: the answer, its facts, and its report if there is one."""
    answer = settlement.answer
    return StoredAnswer(
        status=answer.status,
        answer=answer.to_json(),
        reason=answer.reason.value if answer.reason else None,
        error_code=int(answer.error_code) if answer.error_code else None,
        last_sent_at=settlement.last_sent_at,
        report=report_for(message, settlement, addressee, traceparent=traceparent),
    )


def report_for(
    message: Request, settlement: Settlement, addressee: Addressee, *, traceparent: str | None
) -> NewReport | None:
    """The report that follows from a settlement, or None.

    A citizen's own report always leads to one. A failure leads to one if the supplier wants its code and the failure
    is not ours (our limits, a bug, our set-up).
    """
    if isinstance(message, CitizenReport):
        done = settlement.answer.status is Status.DONE
        return _citizens(message, settlement, addressee, traceparent) if done else None
    code = settlement.answer.error_code
    if code is None or settlement.ours or code not in addressee.wanted:
        return None
    return _automatic(message, code, settlement, addressee, traceparent)


def _automatic(
    message: Request, code: ErrorCode, settlement: Settlement, addressee: Addressee, traceparent: str | None
) -> NewReport:
    report = Report(
        report_id=report_of(message.request_id),
        kind=ReportKind.AUTOMATIC,
        cpr=message.cpr,
        offer_id=getattr(message, "offer_id", None),
        invitation_id=getattr(message, "invitation_id", None),
        error_code=code,
        error_text=NOT_BOOKED_DA if settlement.cause == NOT_BOOKED else text_of(code, settlement.call_facts),
        occurred_at=settlement.answer.answered_at,
        jobcenter_code=message.jobcenter_code,
        request_id=message.request_id,
        type=message.TYPE,
        supplier=addressee.supplier,
        traceparent=traceparent,
    )
    return _new(report, message.request_id, merge=merge_key(report))


def _citizens(
    message: CitizenReport, settlement: Settlement, addressee: Addressee, traceparent: str | None
) -> NewReport:
    report = Report(
        report_id=report_of(message.request_id),
        kind=ReportKind.CITIZEN,
        cpr=message.cpr,
        offer_id=message.offer_id,
        invitation_id=message.invitation_id,
        error_code=message.error_code,
        error_text=message.error_text,
        occurred_at=settlement.answer.answered_at,
        jobcenter_code=message.jobcenter_code,
        supplier=addressee.supplier or None,
        traceparent=traceparent,
    )
    return _new(report, message.request_id, joins=message.failed_request_id)


def _new(
    report: Report, request_id: UUID, *, merge: bytes | None = None, joins: UUID | None = None
) -> NewReport:
    return NewReport(
        report_id=report.report_id,
        kind=report.kind,
        request_id=request_id,
        supplier=report.supplier or "",
        jobcenter_code=report.jobcenter_code,
        type=report.type or CitizenReport.TYPE,
        error_code=int(report.error_code),
        occurred_at=report.occurred_at,
        content=report.to_json(),
        cpr=report.cpr,
        merge=merge,
        traceparent=report.traceparent,
        joins=joins,
    )


def merge_key(report: Report) -> bytes:
    """The key of the deduplication window: citizen, jobcenter, type, offer and invitation as named, code."""
    same = (
        report.cpr.reveal(),
        report.jobcenter_code,
        report.type,
        str(report.offer_id),
        str(report.invitation_id),
        int(report.error_code),
    )
    return json.dumps(same).encode()


def text_of(code: ErrorCode, call_facts: CallFacts | None) -> str:
    """The fejltekst, in Danish, for a person at the supplier: the step, the failure, the duration."""
    opening = OPENINGS_DA.get(code, SYSTEM_ERROR_DA)
    if call_facts is None:
        return opening
    step = STEPS_DA.get(call_facts.step, call_facts.step)
    fault = f" ({call_facts.fault.value})" if call_facts.fault else ""
    what = FAILURES_DA.get(call_facts.what, f"svaret var {call_facts.what}") + fault
    return f"{opening} Trin: {step}. Set: {what}. Varighed: {call_facts.milliseconds} ms."[:MOST_TEXT]


def joined(report: Report, failed: Request, answer: Answer | None = None) -> Report:
    """A citizen's report, completed and corrected from the failed request and its answer, if it has one (R14).

    The request of another citizen adds nothing and is not named to the supplier.
    """
    if report.cpr != failed.cpr:
        return report
    known: dict[str, object] = {
        "request_id": failed.request_id,
        "offer_id": report.offer_id or getattr(failed, "offer_id", None),
        "invitation_id": report.invitation_id or getattr(failed, "invitation_id", None),
        "type": failed.TYPE,
    }
    if not is_possible(report.error_code, failed):
        known["error_code"] = ErrorCode.OTHER
    if answer is not None and answer.status is not Status.DONE:
        known["occurred_at"] = answer.answered_at.astimezone(COPENHAGEN)
    return report.model_copy(update=known)


def is_possible(code: ErrorCode, failed: Request) -> bool:
    """Whether this fejlkode can be that of the failed request (R4)."""
    match code:
        case ErrorCode.NO_OFFERS:  # every other request names an offer or a meeting
            return isinstance(failed, QueryOffers)
        case ErrorCode.NO_TIMES:
            return isinstance(failed, Book | Rebook) or (
                isinstance(failed, QueryTimes) and not failed.immediate
            )
        case ErrorCode.OTHER:
            return True
