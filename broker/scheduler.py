"""Hands over what is due: reports to their lanes, uncertain bookings to verification, outcomes that no arrival will
publish; and takes back what dead processes left behind. Every process runs one; the ledger sees to it that each
thing is handed over once. Nothing that goes wrong here loses anything: what is due stays due in the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from broker.clients import Systems
from broker.errors import LedgerAway, RabbitAway
from broker.ledger import Claim, Ending, Handed, Joinable, LaneLimits, Ledger
from broker.log import get_logger
from broker.publishing import Publisher
from broker.reporting import joined
from broker.routes import ROUTES
from broker.verifier import Verifier
from config.settings import Settings
from schemas.answers import Answer
from schemas.reports import Report

log = get_logger("scheduler")

Duty = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Chore:
    """Something else that is done again and again: dead letters, replays, retention."""

    duty: Duty
    every_seconds: float


class Scheduler:
    """Loops of a process: reports, woken as soon as one is due; bookings, each tick; and each chore at its own pace."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        systems: Systems,
        verifier: Verifier,
        publisher: Publisher,
        chores: Sequence[Chore] = (),
    ) -> None:
        self._chores = chores
        self._settings = settings
        self._ledger = ledger
        self._systems = systems
        self._verifier = verifier
        self._publisher = publisher

    async def run(self) -> None:
        """Until cancelled."""
        tick = self._settings.scheduler.tick_seconds
        async with asyncio.TaskGroup() as loops:
            loops.create_task(
                self._again_and_again(self.deliver, lambda: self._ledger.reports.wait_due(tick))
            )
            loops.create_task(self._again_and_again(self.tick, lambda: asyncio.sleep(tick)))
            for chore in self._chores:
                loops.create_task(
                    self._again_and_again(chore.duty, partial(asyncio.sleep, chore.every_seconds))
                )

    async def _again_and_again(self, duty: Duty, pause: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await duty()
                await pause()
            except LedgerAway:
                await self._ledger.wait_until_back()
            except RabbitAway:
                await asyncio.sleep(self._settings.scheduler.tick_seconds)
            except Exception:
                log.exception("scheduler-bug")
                await asyncio.sleep(self._settings.scheduler.tick_seconds)

    # -- reports ---------------------------------------------------------------------------------------------

    async def deliver(self) -> None:
        """Hand due reports over to their lanes, as much as each lane takes."""
        for joinable in await self._ledger.reports.joinable(self._settings.scheduler.batch):
            await self._join(joinable)
        handed = await self._ledger.reports.hand_over(self._limits())
        await asyncio.gather(*(self._hand_over(each) for each in handed))

    def _limits(self) -> dict[str, LaneLimits]:
        lanes = {
            name: config.lane(self._settings) for name, config in self._systems.directory.suppliers.items()
        }
        return {name: LaneLimits(lane.window, lane.rate_per_second) for name, lane in lanes.items()}

    async def _hand_over(self, handed: Handed) -> None:
        if not await self._publisher.hand_over(handed):
            log.warning("given-back", report_id=handed.report_id, supplier=handed.supplier)
            await self._ledger.reports.give_back(handed)

    async def _join(self, joinable: Joinable) -> None:
        """Let a citizen's report go, with what its failed request adds (DESIGN 6)."""
        report = Report.from_json(joinable.content)
        if joinable.failed is not None and joinable.failed_type in ROUTES:
            failed = ROUTES[joinable.failed_type].message.from_json(joinable.failed)
            report = joined(report, failed)
        await self._ledger.reports.join(joinable.report_id, report.to_json())

    # -- everything else -------------------------------------------------------------------------------------

    async def tick(self) -> None:
        """One look at what is due."""
        batch = self._settings.scheduler.batch
        swept = await self._ledger.sweep(abandoned) + await self._ledger.reports.sweep()
        if swept:
            log.warning("swept", count=swept)
        claims = await self._ledger.verifications_due(self._settings.verification.batch)
        await asyncio.gather(*(self._verify(claim) for claim in claims))
        for event in await self._ledger.events_due(batch):
            await self._publisher.announce_due(event)
            await self._ledger.event_sent([event.request_id])
        for report_event in await self._ledger.reports.events_due(batch):
            await self._publisher.announce_report(report_event)
            await self._ledger.reports.event_sent([report_event.report_id])

    async def _verify(self, claim: Claim) -> None:
        try:
            await self._verifier.verify(claim)
        except LedgerAway:
            raise
        except Exception:
            log.exception("verification-bug", request_id=claim.request_id)
            await self._ledger.postpone(claim, self._settings.verification.longest_pause_seconds)


def abandoned(claim: Claim) -> Ending:
    """The ending of a booking whose process died and whose deadline is over: nobody knows, so `uncertain`."""
    answer = Answer.uncertain(claim, now=datetime.now(UTC))
    return Ending(answer.status, answer.to_json(), last_sent_at=claim.deadline_at)
