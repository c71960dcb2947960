"""A stand-in supplier of booking systems: accepts failure reports in its own format and keeps them in its inbox.

Format `contract`: `POST /v1/BorgerBooking/Fejlmelding`. Format `webhook`: `POST /webhooks/jobnet`, verified by the
`standardwebhooks` library. Both answer 204 with an empty body.
"""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from aiohttp import web

from sandbox.contract import OperationRules, problem
from sandbox.fejlmelding import SIGNATURE, read_webhook, report_problems
from sandbox.inbox import Inbox, RetryAfterCheck
from sandbox.journal import Call
from sandbox.system import System
from sandbox.system_layout import WEBHOOK, Layout

CONTRACT_PATH = "/v1/BorgerBooking/Fejlmelding"
WEBHOOK_PATH = "/webhooks/jobnet"
SECRET_BYTES = 32
# Allows for calls that were sent before their caller had received a Retry-After.
GRACE_S = 1.0


def new_secret() -> str:
    """A new webhook secret in the notation of Standard Webhooks."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


class SupplierServer(System):
    """One supplier and its inbox. A webhook may be signed with any of `secrets` (two while they are rotated)."""

    def __init__(self, name: str, layout: Layout) -> None:
        plan = layout.supplier_plans[name]
        super().__init__(name, layout.served_by(name), host=layout.host, port=plan.port)
        self.format = plan.format
        self.received = Inbox()
        self.secrets = [new_secret()] if plan.format == WEBHOOK else []
        self._retry_after = RetryAfterCheck()
        self._early_calls: list[str] = []

    # The receiver of a webhook recognises a repeat by its webhook-id and answers it like the first call.
    @property
    def remembers_ids(self) -> bool:
        """Whether a repeated x-requestId gives 412."""
        return self.format != WEBHOOK

    @property
    def path(self) -> str:
        """The path in the directory's base_url: that of the webhook, or empty for the contract format."""
        return WEBHOOK_PATH if self.format == WEBHOOK else ""

    def routes(self) -> list[web.RouteDef]:
        """The one path of a supplier."""
        if self.format == WEBHOOK:
            return [web.post(WEBHOOK_PATH, self.handler_reading(self._read, self._take))]
        return [
            web.post(CONTRACT_PATH, self.handler("report", OperationRules(body=report_problems), self._take))
        ]

    async def _read(self, request: web.Request) -> Call:
        return await read_webhook(request, self.secrets, self.served, datetime.now(UTC))

    def _take(self, call: Call) -> web.Response:
        self.received.take(call.body.get("reportId"), call)
        return web.Response(status=204)

    def refusal(self, call: Call) -> web.Response:
        """401 if the signature is wrong, otherwise a fault of docs/contract.md#faults."""
        return web.Response(status=401) if SIGNATURE in call.problems else problem("ugyldig-besked")

    def on_call(self, call: Call) -> None:
        """Note a call that came before the time of Retry-After."""
        if not self._retry_after.is_obeyed(call.at, GRACE_S) and len(self._early_calls) < 100:
            self._early_calls.append("a report came before the time given with Retry-After")

    def on_answer(self, call: Call, answer: web.StreamResponse) -> None:
        """Note the Retry-After of an answer."""
        now = datetime.now(UTC)
        until = _until(answer.headers.get("Retry-After"), now)
        if until is not None:
            self._retry_after.ask(now, until)

    def reset(self) -> None:
        """Return to the state after a start; the secrets stay."""
        super().reset()
        self.received.clear()
        self._retry_after = RetryAfterCheck()
        self._early_calls.clear()

    def books(self) -> dict[str, Any]:
        """No meetings; `disagreements` has the errors found in the inbox."""
        errors = self.received.disagreements() + self._early_calls
        return {"meetings": [], "entries": [], "disagreements": errors}

    def inbox(self) -> list[dict[str, Any]]:
        """Every report received."""
        return self.received.to_json()


def _until(retry_after: str | None, now: datetime) -> datetime | None:
    if retry_after is None:
        return None
    try:
        return (
            now + timedelta(seconds=int(retry_after))
            if retry_after.isdigit()
            else parsedate_to_datetime(retry_after)
        )
    except (ValueError, OverflowError):
        return None
