"""A stand-in supplier of booking systems: takes failure reports in, in its own format, and keeps them in its books.

Contract: `POST /v1/BorgerBooking/Fejlmelding`. Webhook: `POST /webhooks/jobnet`, verified by the
`standardwebhooks` library. Both answer 204, empty. Fetches nothing, replies to nobody.
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
# Calls that had left before a Retry-After was known to the caller.
GRACE_S = 1.0


def new_secret() -> str:
    """A webhook secret as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


class SupplierServer(System):
    """One supplier and its inbox. `secrets`: those a webhook may be signed with (two while they are changed)."""

    def __init__(self, name: str, layout: Layout) -> None:
        plan = layout.supplier_plans[name]
        super().__init__(name, layout.served_by(name), host=layout.host, port=plan.port)
        self.format = plan.format
        self.received = Inbox()
        self.secrets = [new_secret()] if plan.format == WEBHOOK else []
        self._patience = RetryAfterCheck()
        self._impatient: list[str] = []

    # A webhook's receiver knows a repeat by its webhook-id and answers it as it answered the first.
    @property
    def remembers_ids(self) -> bool:
        """Whether a repeated x-requestId gives 412."""
        return self.format != WEBHOOK

    @property
    def path(self) -> str:
        """What the directory adds to the address: a webhook's whole path, nothing for the contract."""
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
        """401 where the signature is wrong, as a login would be; else a fault of the contract's list."""
        return web.Response(status=401) if SIGNATURE in call.problems else problem("ugyldig-besked")

    def on_call(self, call: Call) -> None:
        """Was it asked to wait?"""
        if not self._patience.is_obeyed(call.at, GRACE_S) and len(self._impatient) < 100:
            self._impatient.append("a report came before the time that Retry-After had said")

    def on_answer(self, call: Call, answer: web.StreamResponse) -> None:
        """Notes what was asked for."""
        now = datetime.now(UTC)
        until = _until(answer.headers.get("Retry-After"), now)
        if until is not None:
            self._patience.ask(now, until)

    def reset(self) -> None:
        """As newly started; the secrets stay."""
        super().reset()
        self.received.clear()
        self._patience = RetryAfterCheck()
        self._impatient.clear()

    def books(self) -> dict[str, Any]:
        """No meetings; what should never be in an inbox."""
        wrong = self.received.disagreements() + self._impatient
        return {"meetings": [], "entries": [], "disagreements": wrong}

    def inbox(self) -> list[dict[str, Any]]:
        """Every report received."""
        return self.received.to_json()


def _until(wished: str | None, now: datetime) -> datetime | None:
    if wished is None:
        return None
    try:
        return now + timedelta(seconds=int(wished)) if wished.isdigit() else parsedate_to_datetime(wished)
    except (ValueError, OverflowError):
        return None
