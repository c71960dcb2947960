"""Verifies uncertain bookings by reads and settles them (docs/architecture.md#unknown).

A booking that is found settles at once. Absence proves nothing until `absence_proves_after_seconds` have passed since
the last send (of a claim taken over: since its deadline); then the booking did not happen. A booking that no look-up
can settle within `verification.give_up_after_seconds` becomes `unverified`. Only reads leave from here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID

from broker.clients import Clients, Systems
from broker.clients.http import Caller
from broker.errors import BrokerError
from broker.ledger.ledger import Ledger
from broker.ledger.model import Claim
from broker.reports.enrichment import Addressee, stored_answer_of
from broker.requests.routes import ROUTES
from broker.settle import Settlement, done, not_carried_out
from broker.telemetry.log import get_logger
from config.sections import VerificationSettings
from config.settings import Settings
from schemas.envelope import InvalidMessage, Request

log = get_logger("verifier")

DEAD_OWNERS_MOST = 3
"""A request whose owner died so often is left to a person."""


class Verifier:
    """Verifies uncertain bookings for the scheduler and for a citizen's next booking (R9)."""

    def __init__(self, settings: Settings, ledger: Ledger, systems: Systems) -> None:
        self._settings = settings
        self._ledger = ledger
        self._systems = systems

    async def verify_now(self, request_id: UUID, *, answer_by: float) -> bool | None:
        """Verify one booking now, while another booking of the same citizen waits; True if it is settled now.

        None: another process verifies it, or it is no longer uncertain.
        """
        claim = await self._ledger.verifications.claim(request_id)
        return await self.verify(claim, answer_by=answer_by) if claim is not None else None

    async def verify(self, claim: Claim, *, answer_by: float | None = None) -> bool:
        """Verify a claimed booking; True if it is settled now. A booking with too many dead owners is given up."""
        with self._ledger.verifications.until_end(claim):
            return await self._verify(claim, answer_by)

    async def _verify(self, claim: Claim, answer_by: float | None) -> bool:
        if claim.dead_owners >= DEAD_OWNERS_MOST:
            log.error("booking-unverified", request_id=claim.request_id, cause="crash")
            await self._ledger.verifications.give_up(claim)
            return False
        message = opened(claim)
        if message is None:
            log.error("message-cannot-be-decrypted", request_id=claim.request_id)
            await self._postpone(claim)
            return False
        patience = 2 * self._settings.http.total_timeout_seconds
        by = answer_by or monotonic() + patience
        caller = Caller.of(message, traceparent=claim.traceparent, answer_by=by)
        try:
            clients = self._systems.clients(claim.planner, claim.booking_system)
            settlement = await self._look_up(claim, message, caller, clients)
        except BrokerError as error:
            log.warning("verification-failed", request_id=claim.request_id, reason=error.cause)
            settlement = None
        if settlement is None:
            await self._postpone(claim)
            return False
        addressee = Addressee.of(self._systems.directory, claim.supplier)
        stored = stored_answer_of(message, settlement, addressee, traceparent=claim.traceparent)
        log.info(
            "booking-verified", request_id=claim.request_id, type=claim.type, outcome=stored.status.value
        )
        return await self._ledger.requests.settle(claim, stored) is not None

    async def _look_up(
        self, claim: Claim, message: Request, caller: Caller, clients: Clients
    ) -> Settlement | None:
        lookup = ROUTES[claim.type].lookup
        assert lookup is not None  # noqa: S101  only claimed types are ever uncertain
        asked_at = datetime.now(UTC)  # a read may show the state at its start
        result = await lookup(message, caller, clients)
        if result is not None:
            return done(message, result, datetime.now(UTC))
        proves_at = absence_proves_at(claim, clients.booking.absence_proves_after_seconds)
        return not_carried_out(message, datetime.now(UTC)) if asked_at >= proves_at else None

    async def _postpone(self, claim: Claim) -> None:
        waited = self._waited(claim)
        if waited >= self._settings.verification.give_up_after_seconds:
            log.error("booking-unverified", request_id=claim.request_id, system=claim.booking_system)
            await self._ledger.verifications.give_up(claim)
        else:
            pause = pause_after(waited, claim.verify_tries, self._settings.verification)
            await self._ledger.verifications.postpone(claim, pause)

    @staticmethod
    def _waited(claim: Claim) -> float:
        since = claim.uncertain_since or datetime.now(UTC)
        return (datetime.now(UTC) - since).total_seconds()


def opened(claim: Claim) -> Request | None:
    """The stored request, decrypted; None if that fails or no model of this release reads it."""
    if claim.message is None or claim.type not in ROUTES:
        return None
    try:
        return ROUTES[claim.type].message.from_json(claim.message)
    except InvalidMessage:
        return None


def absence_proves_at(claim: Claim, proves_after_seconds: float) -> datetime:
    """The moment from which absence proves "not carried out"; an unknown last send counts as the deadline."""
    return (claim.last_sent_at or claim.deadline_at) + timedelta(seconds=proves_after_seconds)


def pause_after(waited: float, tries: int, rules: VerificationSettings) -> float:
    """Seconds until the next look-up: constant first, then growing up to `longest_pause_seconds`."""
    if waited < rules.steady_for_seconds:
        return rules.every_seconds
    steady_tries = rules.steady_for_seconds / rules.every_seconds
    exponent = min(
        max(tries - steady_tries, 0) + 1, 64
    )  # keeps the power within a float; 2.0 ** 64 s exceeds any pause
    return float(min(rules.every_seconds * rules.growth**exponent, rules.longest_pause_seconds))
