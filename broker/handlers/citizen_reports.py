"""Handler of a citizen's own report (release note 3.2): returns a receipt and calls no system.

The report's row is made in the commit that settles this request (broker/reports/enrichment.py).
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
    """The handler: a receipt, without a call."""
    return receipt_of(message)
