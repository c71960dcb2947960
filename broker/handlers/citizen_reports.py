"""What a citizen writes about a failed booking: taken over with a receipt; the report itself goes on its lane.

The report's row is made in the commit that settles this request (`broker.reports.enrichment`); nothing is called here.
"""

from __future__ import annotations

from datetime import UTC, datetime

from schemas.answers import ReceiptResult
from schemas.ids import report_of
from schemas.requests import CitizenReport


def receipt_of(message: CitizenReport) -> ReceiptResult:
    """The receipt of release note 3.2: it goes to the supplier of the booking system, not to the jobcenter."""
    return ReceiptResult(report_id=report_of(message.request_id), received_at=datetime.now(UTC))


async def receive(message: CitizenReport, _caller: object, _clients: object) -> ReceiptResult:
    """A handler like the others, although it calls nobody."""
    return receipt_of(message)
