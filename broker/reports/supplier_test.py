"""A test report: an invented citizen, words that say what it is, and nobody's request.

It goes the whole way that every report goes, so that what it proves is true of the next real one.
"""

from __future__ import annotations

from datetime import datetime
from uuid import uuid4

from broker.ledger.model import NewReport
from schemas.codes import ErrorCode, ReportKind
from schemas.failure_reports import Report
from schemas.personal import Cpr

TRIAL = "report.test.v1"
"""Its type, where others have the type of the request that failed. No arrival has it."""

WORDS_DA = "TEST: Dette er en prøvemelding fra Jobnet. Ingen borger er berørt, og intet skal gøres."


def trial_for(supplier: str, jobcenter_code: str, cpr: Cpr, at: datetime) -> NewReport:
    """One for this supplier, as from this jobcenter."""
    report = Report(
        report_id=uuid4(),
        kind=ReportKind.AUTOMATIC,
        cpr=cpr,
        error_code=ErrorCode.OTHER,
        error_text=WORDS_DA,
        occurred_at=at,
        jobcenter_code=jobcenter_code,
        type=TRIAL,
        supplier=supplier,
    )
    return NewReport(
        report_id=report.report_id,
        kind=report.kind,
        request_id=report.report_id,
        supplier=supplier,
        jobcenter_code=jobcenter_code,
        type=TRIAL,
        error_code=int(ErrorCode.OTHER),
        occurred_at=at,
        content=report.to_json(),
        cpr=cpr,
    )
