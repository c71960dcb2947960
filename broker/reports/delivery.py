"""The story of one message on a lane: claim the report, one attempt, record its result, acknowledge.

The message carries an id and a hand-over number. If the ledger's row is not handed over under that number, the
message is stale and is dropped. Retries are the ledger's schedule; nothing waits here (docs/architecture.md#reports).
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from broker.clients import Systems
from broker.clients.supplier import SupplierReceipt
from broker.errors import BrokerError
from broker.lanes.decision import Decision
from broker.lanes.retry_policy import judge
from broker.ledger.ledger import Ledger
from broker.ledger.reports.report_model import ReportClaim
from broker.publisher import Publisher
from broker.rabbitmq import Arrival
from broker.reports.report_spans import attempting
from broker.telemetry.counters import COUNTERS
from broker.telemetry.log import get_logger
from config.settings import Settings
from schemas.envelope import FieldProblem, InvalidMessage
from schemas.failure_reports import LaneMessage, Report

log = get_logger("delivery")


@dataclass(frozen=True, slots=True)
class HandledLaneMessage:
    """What becomes of one message on a lane.

    `problems`: it cannot be read and goes to the dead-letter queue. `claim` None: it is stale. `recorded`: the ledger
    has the attempt's result; False if another process had taken the report over, None if the ledger refused the row.
    """

    message: LaneMessage | None = None
    problems: tuple[FieldProblem, ...] | None = None
    claim: ReportClaim | None = None
    decision: Decision | None = None
    recorded: bool | None = None


class Deliveries:
    """Handles messages on lanes."""

    def __init__(self, settings: Settings, ledger: Ledger, systems: Systems, publisher: Publisher) -> None:
        self._settings = settings
        self._ledger = ledger
        self._systems = systems
        self._publisher = publisher

    async def carry(self, arrival: Arrival) -> None:
        """Decide, publish what replaces the message (confirmed), acknowledge, record. The only ack in this file."""
        began = monotonic()
        handled = await self._handle(arrival)
        if handled.problems is not None:
            await self._publisher.dead_letter(arrival, "invalid", handled.problems)
        await arrival.ack()
        self._record(arrival, handled, milliseconds=int((monotonic() - began) * 1000))

    async def _handle(self, arrival: Arrival) -> HandledLaneMessage:
        """Read, claim, attempt, record the result in the ledger. Publishes nothing."""
        began = monotonic()
        try:
            message = LaneMessage.from_json(arrival.body)
        except InvalidMessage as invalid:
            return HandledLaneMessage(problems=invalid.problems)
        claim = await self._ledger.reports.claim(message.report_id, message.number)
        if claim is None:
            return HandledLaneMessage(message)
        with self._ledger.reports.until_end(claim):
            return await self._attempt(message, claim, began)

    async def _attempt(self, message: LaneMessage, claim: ReportClaim, began: float) -> HandledLaneMessage:
        decision = await attempting(attempt)(claim, self._systems, self._settings)
        COUNTERS.attempted(claim.supplier, decision.verdict.label, began)
        try:
            recorded = await self._ledger.reports.finish(claim, decision)
        except BrokerError as refusal:
            # The row stays `delivering`; the sweep finds it there and makes the report due again.
            log.error("attempt-not-recorded", report_id=claim.report_id, reason=refusal)
            return HandledLaneMessage(message, claim=claim, decision=decision)
        return HandledLaneMessage(message, claim=claim, decision=decision, recorded=recorded)

    @staticmethod
    def _record(arrival: Arrival, handled: HandledLaneMessage, *, milliseconds: int) -> None:
        """The one log line of this message."""
        claim, decision = handled.claim, handled.decision
        if claim is None or decision is None:
            if handled.message is not None:
                log.info("stale-lane-message", report_id=handled.message.report_id, queue=arrival.queue)
            return
        if handled.recorded is None:
            return
        call, verdict = decision.call_facts, decision.verdict
        facts = {
            "report_id": claim.report_id,
            "supplier": claim.supplier,
            "attempt": claim.attempt,
            "outcome": verdict.label if handled.recorded else "overtaken",
            "cause": getattr(verdict, "cause", None),
            "probe": claim.probe or None,
            "what": call.what if call else None,
            "status": call.status if call else None,
            "milliseconds": milliseconds,
        }
        log.info("delivery-attempted", **{name: value for name, value in facts.items() if value is not None})


async def attempt(claim: ReportClaim, systems: Systems, settings: Settings) -> Decision:
    """Open the report, tell the supplier, decide what follows. Raises only at the stop of the process."""
    config = systems.directory.suppliers.get(claim.supplier)
    rules = config.lane(settings.reports) if config else settings.reports
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
    decision = judge(error, claim.tries, rules, overrides, probe=claim.probe, duplicate=duplicate)
    if error is not None and decision.call_facts is None:
        log.error("delivery-bug", report_id=claim.report_id, exc_info=error)
    return decision
