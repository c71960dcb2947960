"""What a citizen writes about a failed booking: taken over with a receipt; the report itself goes on its lane.

The report's row is made in the commit that settles this request (`broker.reports.enrichment`); nothing is called here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid5

from schemas.answers import ReceiptResult
from schemas.requests import CitizenReport


def report_of(request_id: UUID) -> UUID:
    """The id of the report that a request leads to: the same for every try, at the supplier too."""
    return uuid5(request_id, "reportId")


def receipt_of(message: CitizenReport) -> ReceiptResult:
    """The receipt of release note 3.2: it goes to the supplier of the booking system, not to the jobcenter."""
    return ReceiptResult(report_id=report_of(message.request_id), received_at=datetime.now(UTC))


async def receive(message: CitizenReport, _caller: object, _clients: object) -> ReceiptResult:
    """A handler like the others, although it calls nobody."""
    return receipt_of(message)
