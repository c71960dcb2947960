"""One attempt to deliver one report: open it, tell the supplier, judge what came back. Writes nothing down."""

from __future__ import annotations

from broker.clients import Systems
from broker.clients.supplier import Receipt
from broker.lanes.retry_policy import Judgement, judge
from broker.ledger import ReportClaim
from broker.telemetry.log import get_logger
from config.settings import Settings
from schemas.reports import Report

log = get_logger("delivery")


async def attempt(claim: ReportClaim, systems: Systems, settings: Settings) -> Judgement:
    """Never raises but for the process's stop: a bug of ours is judged like everything else (DESIGN 5)."""
    config = systems.directory.suppliers.get(claim.supplier)
    rules = config.lane(settings) if config else settings.reports
    overrides = config.status_means if config else {}
    error: Exception | None = None
    duplicate = False
    try:
        report = Report.from_json(claim.content).model_copy(update={"count": claim.count})
        receipt = await systems.supplier(claim.supplier).deliver(
            report, x_request_id=claim.x_request_id, attempt=claim.attempt, unanswered=claim.unanswered
        )
        duplicate = receipt is Receipt.DUPLICATE
    except Exception as caught:
        error = caught
    judgement = judge(error, claim.tries, rules, overrides, probe=claim.probe, duplicate=duplicate)
    if error is not None and judgement.seen is None:
        log.error("delivery-bug", report_id=claim.report_id, exc_info=error)
    return judgement
