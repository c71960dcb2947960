"""The client of a supplier: one attempt to deliver a failure report, in the supplier's format.

Two formats: the Fejlmelding of the contract (docs/contract.md#fejlmelding) and a signed webhook
(docs/contract.md#webhook). One call is one try; `lanes/retry_policy.py` decides about retries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from standardwebhooks import Webhook

from broker.clients.calls import Call, CallKind, contract_headers, trace_header
from broker.clients.classify import CallClass, error_of
from broker.clients.http import HttpSystem
from broker.errors import CallFacts, Misconfigured
from config.sources import ConfigProblem
from config.suppliers import Supplier as SupplierConfig
from schemas.failure_reports import Report

STEP = "fejlmelding"
PATH = "/v1/BorgerBooking/Fejlmelding"
# Standard Webhooks: any 2xx is a success. `status_means` in the directory can take one out.
WEBHOOK_GOOD = frozenset(range(200, 300))


class SupplierReceipt(Enum):
    """How a supplier confirmed that it has the report."""

    DELIVERED = "delivered"
    DUPLICATE = "an earlier, unanswered try had arrived"


@dataclass(frozen=True, slots=True)
class DeliveryCall:
    """The call and the headers of one attempt. They contain the CPR number, so `repr` is redacted."""

    call: Call[Any]
    headers: dict[str, str]

    def __repr__(self) -> str:
        return f"DeliveryCall({self.call.step})"


class Supplier:
    """One supplier. `system` is None while the directory has no address for it."""

    def __init__(self, name: str, config: SupplierConfig, system: HttpSystem | None) -> None:
        self.name = name
        self.config = config
        self._system = system

    async def deliver(
        self, report: Report, *, x_request_id: str, attempt: int, unanswered: bool = False
    ) -> SupplierReceipt:
        """Make one attempt, number `attempt` of this report.

        `unanswered`: an earlier try with this x-requestId may have been taken in; a 412 then means that it was.
        Raises Refused, Unavailable, Misconfigured, ContractBroken, Rejected, AtCapacity; their `call_facts` say whether
        the report was sent and answered.
        """
        if self._system is None:
            raise self._not_set_up("no-address")
        try:
            delivery = _FORMATS[self.config.format](self.config, report, x_request_id, attempt)
        except ConfigProblem:
            raise self._not_set_up("webhook-secret") from None
        classified, call_facts = await self._system.call_once(
            delivery.call, delivery.headers, after_unanswered=unanswered
        )
        if (error := error_of(classified, call_facts)) is not None:
            raise error
        received_before = classified.call_class is CallClass.RECEIVED
        return SupplierReceipt.DUPLICATE if received_before else SupplierReceipt.DELIVERED

    def _not_set_up(self, what: str) -> Misconfigured:
        return Misconfigured(CallFacts(self.name, STEP, what, sent=False))


def _contract(_config: SupplierConfig, report: Report, x_request_id: str, _attempt: int) -> DeliveryCall:
    """The call of the contract. Only 204 is good; the CPR number is in a header."""
    call: Call[Any] = Call(STEP, CallKind.COMMIT, "POST", PATH, 204, body=report.to_contract(), alone=True)
    headers = contract_headers(report.cpr, report.jobcenter_code, x_request_id)
    return DeliveryCall(call, headers | trace_header(report.traceparent))


def _webhook(config: SupplierConfig, report: Report, x_request_id: str, attempt: int) -> DeliveryCall:
    """A webhook to the configured address, signed with every secret in force.

    Raises ConfigProblem if a secret cannot be read.
    """
    body = report.to_webhook()
    otherwise = {int(status) for status, meaning in config.status_means.items() if meaning != "delivered"}
    good = WEBHOOK_GOOD - otherwise
    call: Call[Any] = Call(
        STEP, CallKind.COMMIT, "POST", "", 204, body=body, also_good=good, any_body=True, alone=True
    )
    headers = signed(str(report.report_id), body, config.webhook_secrets(), datetime.now(UTC))
    headers |= {"x-requestId": x_request_id, "x-attempt": str(attempt)}
    return DeliveryCall(call, headers | trace_header(report.traceparent))


def signed(message_id: str, body: bytes, secrets: tuple[str, ...], now: datetime) -> dict[str, str]:
    """The three headers of Standard Webhooks 1.0, with one v1 signature for each secret. `now` must be in UTC."""
    text = body.decode()
    signatures = (Webhook(secret).sign(message_id, now, text) for secret in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


_FORMATS: dict[str, Callable[[SupplierConfig, Report, str, int], DeliveryCall]] = {
    "contract": _contract,
    "webhook": _webhook,
}
