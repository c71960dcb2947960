"""Hands over what is due: uncertain bookings to be verified, claims that a dead process left behind, and outcomes
that no arrival will publish. Every process runs one; the ledger sees to it that each thing is handed over once.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from broker.errors import LedgerAway, RabbitAway, Seen, Unknown
from broker.ledger import Claim, DueEvent, Ending, Ledger
from broker.log import get_logger
from broker.publishing import Publisher
from broker.reporting import NOBODY, ending_of
from broker.settle import settle
from broker.verifier import Verifier, stored_message
from config.settings import Settings

log = get_logger("scheduler")


class Scheduler:
    """One loop a process: sweep, verify, announce, wait a tick."""

    def __init__(self, settings: Settings, ledger: Ledger, verifier: Verifier, publisher: Publisher) -> None:
        self._settings = settings
        self._ledger = ledger
        self._verifier = verifier
        self._publisher = publisher

    async def run(self) -> None:
        """Until cancelled. Nothing that goes wrong here stops the loop: what is due stays due in the ledger."""
        while True:
            try:
                await self.tick()
            except LedgerAway:
                await self._ledger.wait_until_back()
            except RabbitAway:
                log.warning("rabbit-away", what="outcomes stay due")
            except Exception:
                log.exception("scheduler-bug")
            await asyncio.sleep(self._settings.scheduler.tick_seconds)

    async def tick(self) -> None:
        """One look at what is due."""
        swept = await self._ledger.sweep(abandoned)
        if swept:
            log.warning("swept", count=swept, what="claims of a process that died")
        claims = await self._ledger.verifications_due(self._settings.verification.batch)
        await asyncio.gather(*(self._verify(claim) for claim in claims))
        await self._announce(await self._ledger.events_due(self._settings.scheduler.batch))

    async def _verify(self, claim: Claim) -> None:
        try:
            await self._verifier.verify(claim)
        except LedgerAway:
            raise
        except Exception:
            log.exception("verification-bug", request_id=claim.request_id)
            await self._ledger.postpone(claim, self._settings.verification.longest_pause_seconds)

    async def _announce(self, due: list[DueEvent]) -> None:
        for event in due:
            await self._publisher.announce_due(event)
            await self._ledger.event_sent([event.request_id])


def abandoned(claim: Claim) -> Ending:
    """The ending of a claim whose process died and whose deadline is over: nobody knows, so `uncertain`."""
    seen = Seen(claim.booking_system, "claim", "owner-died")
    unknown = Unknown(seen, last_sent_at=claim.deadline_at)
    message = stored_message(claim)
    return ending_of(
        message, settle(message, unknown, datetime.now(UTC)), NOBODY, traceparent=claim.traceparent
    )
