"""The story of one arrival on a lane, ack last: claim, one attempt, what came of it into the ledger, ack.

What travels on a lane is an id and a number. If the ledger's row is not handed over under that very number, the
arrival is an old copy and is dropped. Retries are the ledger's schedule; nothing waits here (DESIGN 6).
"""

from __future__ import annotations

from time import monotonic

from broker.clients import Systems
from broker.clients.supplier import SupplierReceipt
from broker.errors import BrokerError
from broker.lanes.retry_policy import Decision, judge
from broker.ledger.ledger import Ledger
from broker.ledger.reports.report_model import ReportClaim
from broker.publisher import Publisher
from broker.rabbitmq import Arrival
from broker.reports.report_spans import attempting
from broker.telemetry.counters import COUNTERS
from broker.telemetry.log import get_logger
from config.settings import Settings
from schemas.envelope import InvalidMessage
from schemas.failure_reports import LaneMessage, Report

log = get_logger("lanes")


class Deliveries:
    """Carries arrivals of lanes."""

    def __init__(self, settings: Settings, ledger: Ledger, systems: Systems, publisher: Publisher) -> None:
        self._settings = settings
        self._ledger = ledger
        self._systems = systems
        self._publisher = publisher

    async def carry(self, arrival: Arrival) -> None:
        """One arrival from claim to acknowledgement."""
        began = monotonic()
        try:
            message = LaneMessage.from_json(arrival.body)
        except InvalidMessage as invalid:
            await self._publisher.dead_letter(arrival, "invalid", invalid.problems)
            await arrival.ack()
            return
        claim = await self._ledger.reports.claim(message.report_id, message.number)
        if claim is None:
            log.info("old-copy", report_id=message.report_id, queue=arrival.queue)
        else:
            await self._attempt(claim, began)
        await arrival.ack()

    async def _attempt(self, claim: ReportClaim, began: float) -> None:
        """What cannot be written down is found by the sweep: the row is the truth, the arrival only its messenger."""
        judgement = await attempting(attempt)(claim, self._systems, self._settings)
        COUNTERS.attempted(claim.supplier, judgement.verdict.label, began)
        try:
            applied = await self._ledger.reports.finish(claim, judgement)
        except BrokerError as refusal:
            log.error("attempt-not-written", report_id=claim.report_id, reason=refusal)
        else:
            self._log(claim, judgement, applied, milliseconds=int((monotonic() - began) * 1000))

    @staticmethod
    def _log(claim: ReportClaim, judgement: Decision, applied: bool, *, milliseconds: int) -> None:
        """The one line about this attempt."""
        call_facts, verdict = judgement.call_facts, judgement.verdict
        facts = {
            "report_id": claim.report_id,
            "supplier": claim.supplier,
            "attempt": claim.attempt,
            "outcome": verdict.label if applied else "overtaken",
            "cause": getattr(verdict, "cause", None),
            "probe": claim.probe or None,
            "what": call_facts.what if call_facts else None,
            "status": call_facts.status if call_facts else None,
            "milliseconds": milliseconds,
        }
        log.info("delivery", **{name: value for name, value in facts.items() if value is not None})


async def attempt(claim: ReportClaim, systems: Systems, settings: Settings) -> Decision:
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
        duplicate = receipt is SupplierReceipt.DUPLICATE
    except Exception as caught:
        error = caught
    judgement = judge(error, claim.tries, rules, overrides, probe=claim.probe, duplicate=duplicate)
    if error is not None and judgement.call_facts is None:
        log.error("delivery-bug", report_id=claim.report_id, exc_info=error)
    return judgement
