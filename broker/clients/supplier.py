"""A supplier of booking systems, who is told of a failure: one attempt in the supplier's own format (DESIGN 4).

Two formats: the Fejlmelding of the BorgerBooking contract, and a signed webhook (Standard Webhooks). One call
is one try: when again, and whether at all, is judged in `delivery_policy.py` and kept by the lane.
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
# A webhook has no contract that names one good status; 202 only promises, so it needs an override.
WEBHOOK_GOOD = frozenset({200, 201})


class SupplierReceipt(Enum):
    """What the supplier said of a report that it has now."""

    DELIVERED = "delivered"
    DUPLICATE = "an unanswered try had arrived"


@dataclass(frozen=True, slots=True)
class DeliveryCall:
    """One attempt: its call and its headers. Holds the CPR number in clear, so it never shows itself."""

    call: Call[Any]
    headers: dict[str, str]

    def __repr__(self) -> str:
        return f"Sending({self.call.step})"


class Supplier:
    """One supplier. `system` is None while the directory has no address for it."""

    def __init__(self, name: str, config: SupplierConfig, system: HttpSystem | None) -> None:
        self.name = name
        self.config = config
        self._system = system

    async def deliver(
        self, report: Report, *, x_request_id: str, attempt: int, unanswered: bool = False
    ) -> SupplierReceipt:
        """Makes one attempt, the `attempt`-th of this report.

        `unanswered`: this x-requestId was sent before, and nobody answered; a 412 then means that it arrived.
        Raises Refused, Unavailable, Misconfigured, ContractBroken, Rejected, AtCapacity; their `call_facts` says
        whether anything was sent and whether it was answered.
        """
        if self._system is None:
            raise self._not_set_up("no-address")
        try:
            sending = _FORMATS[self.config.format](self.config, report, x_request_id, attempt)
        except ConfigProblem:
            raise self._not_set_up("webhook-secret") from None
        judgement, call_facts = await self._system.once(
            sending.call, sending.headers, after_unanswered=unanswered
        )
        if (error := error_of(judgement, call_facts)) is not None:
            raise error
        return (
            SupplierReceipt.DUPLICATE
            if judgement.verdict is CallClass.RECEIVED
            else SupplierReceipt.DELIVERED
        )

    def _not_set_up(self, what: str) -> Misconfigured:
        return Misconfigured(CallFacts(self.name, STEP, what, sent=False))


def _contract(_config: SupplierConfig, report: Report, x_request_id: str, _attempt: int) -> DeliveryCall:
    """204 and nothing else; the CPR number travels in its header."""
    call: Call[Any] = Call(STEP, CallKind.COMMIT, "POST", PATH, 204, body=report.to_contract())
    headers = contract_headers(report.cpr, report.jobcenter_code, x_request_id)
    return DeliveryCall(call, headers | trace_header(report.traceparent))


def _webhook(config: SupplierConfig, report: Report, x_request_id: str, attempt: int) -> DeliveryCall:
    """Signed with every live secret; the address is the configured one, as it stands.

    Raises ConfigProblem if a secret cannot be read.
    """
    body = report.to_webhook()
    call: Call[Any] = Call(
        STEP, CallKind.COMMIT, "POST", "", 204, body=body, also_good=WEBHOOK_GOOD, any_body=True
    )
    headers = signed(str(report.report_id), body, config.webhook_secrets(), datetime.now(UTC))
    headers |= {"x-requestId": x_request_id, "x-attempt": str(attempt)}
    return DeliveryCall(call, headers | trace_header(report.traceparent))


def signed(message_id: str, body: bytes, secrets: tuple[str, ...], now: datetime) -> dict[str, str]:
    """The three headers of Standard Webhooks 1.0, one v1 signature for each secret. `now` must be in UTC."""
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
