"""Finds out what became of uncertain bookings, and says the last word on them (DESIGN 5, "Unknown").

Presence settles at once. Absence proves nothing until `absence_proves_after_seconds` have passed since the last send
(of a claim taken over: since its deadline); then the booking did not happen. What no look-up can settle in
`verification.give_up_after_seconds` becomes `unverified`. Nothing is ever sent again from here but reads.
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
from broker.reports.enrichment import Addressee, ending_of
from broker.requests.routes import ROUTES
from broker.settle import Settlement, done, not_carried_out
from broker.telemetry.log import get_logger
from config.settings import Settings, VerificationSettings
from schemas.envelope import InvalidMessage, Request

log = get_logger("verifier")

DEAD_OWNERS_MOST = 3
"""A request whose owner died so often is not touched again: a person must look."""


class Verifier:
    """Looks uncertain bookings up, for the scheduler and for a citizen's next booking (rule 9)."""

    def __init__(self, settings: Settings, ledger: Ledger, systems: Systems) -> None:
        self._settings = settings
        self._ledger = ledger
        self._systems = systems

    async def verify_now(self, request_id: UUID, *, answer_by: float) -> bool | None:
        """Look one up at once, while another booking of its citizen waits; True when it is settled now.

        None: somebody else is looking, or it is not uncertain any more.
        """
        claim = await self._ledger.verifications.claim(request_id)
        return await self.verify(claim, answer_by=answer_by) if claim is not None else None

    async def verify(self, claim: Claim, *, answer_by: float | None = None) -> bool:
        """Look a claimed one up; True when that was the last word on it.

        One that so many processes died at is not looked up again: it is given up at once (DESIGN 8).
        """
        if claim.dead_owners >= DEAD_OWNERS_MOST:
            log.error("unverified", request_id=claim.request_id, cause="crash")
            await self._ledger.verifications.give_up(claim)
            return False
        message = opened(claim)
        if message is None:
            log.error("message-does-not-open", request_id=claim.request_id)
            await self._later(claim)
            return False
        patience = 2 * self._settings.http.total_timeout_seconds
        by = answer_by or monotonic() + patience
        caller = Caller.of(message, traceparent=claim.traceparent, answer_by=by)
        try:
            clients = self._systems.clients(claim.planner, claim.booking_system)
            settlement = await self._look(claim, message, caller, clients)
        except BrokerError as error:
            log.warning("verification-failed", request_id=claim.request_id, reason=error.cause)
            settlement = None
        if settlement is None:
            await self._later(claim)
            return False
        addressee = Addressee.of(self._systems.directory, claim.supplier)
        ending = ending_of(message, settlement, addressee, traceparent=claim.traceparent)
        log.info("verified", request_id=claim.request_id, type=claim.type, outcome=ending.status.value)
        return await self._ledger.requests.settle(claim, ending) is not None

    async def _look(
        self, claim: Claim, message: Request, caller: Caller, clients: Clients
    ) -> Settlement | None:
        lookup = ROUTES[claim.type].lookup
        assert lookup is not None  # noqa: S101  only claimed types are ever uncertain
        asked_at = datetime.now(UTC)  # what a read shows is as old as its beginning
        result = await lookup(message, caller, clients)
        if result is not None:
            return done(message, result, datetime.now(UTC))
        proves_at = absence_proves_at(claim, clients.booking.absence_proves_after_seconds)
        return not_carried_out(message, datetime.now(UTC)) if asked_at >= proves_at else None

    async def _later(self, claim: Claim) -> None:
        waited = self._waited(claim)
        if waited >= self._settings.verification.give_up_after_seconds:
            log.error("unverified", request_id=claim.request_id, system=claim.booking_system)
            await self._ledger.verifications.give_up(claim)
        else:
            pause = pause_after(waited, claim.verify_tries, self._settings.verification)
            await self._ledger.verifications.postpone(claim, pause)

    @staticmethod
    def _waited(claim: Claim) -> float:
        since = claim.uncertain_since or datetime.now(UTC)
        return (datetime.now(UTC) - since).total_seconds()


def opened(claim: Claim) -> Request | None:
    """The request as the ledger sealed it; None if its seal is broken or no model of ours reads it any more."""
    if claim.message is None or claim.type not in ROUTES:
        return None
    try:
        return ROUTES[claim.type].message.from_json(claim.message)
    except InvalidMessage:
        return None


def absence_proves_at(claim: Claim, proves_after_seconds: float) -> datetime:
    """From when on "not there" means "did not happen"; a send that the clock forgot counts from the deadline."""
    return (claim.last_sent_at or claim.deadline_at) + timedelta(seconds=proves_after_seconds)


def pause_after(waited: float, tries: int, rules: VerificationSettings) -> float:
    """Seconds until the next look: steady first, then growing, never longer than the longest pause."""
    if waited < rules.steady_for_seconds:
        return rules.every_seconds
    steady_tries = rules.steady_for_seconds / rules.every_seconds
    exponent = min(max(tries - steady_tries, 0) + 1, 64)  # 2.0 ** 64 s is far beyond any longest pause
    return float(min(rules.every_seconds * rules.growth**exponent, rules.longest_pause_seconds))
