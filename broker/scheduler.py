"""Hands over what is due: reports to their lanes, uncertain bookings to verification, outcomes that no arrival will
publish; and takes back what dead processes left behind. Every process runs one; the ledger sees to it that each
thing is handed over once. Nothing that goes wrong here loses anything: what is due stays due in the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from broker.clients import Systems
from broker.errors import LedgerAway, RabbitAway
from broker.handlers.citizen_reports import receipt_of
from broker.ledger.ledger import Ledger
from broker.ledger.model import Claim, StoredAnswer
from broker.ledger.reports.report_model import HandedOver, Joinable, LaneLimits
from broker.publisher import Publisher
from broker.reports.enrichment import Addressee, ending_of, joined
from broker.requests.routes import ROUTES
from broker.requests.verifier import Verifier, opened
from broker.settle import done
from broker.telemetry.log import get_logger
from config.settings import Settings
from schemas.answers import Answer
from schemas.envelope import InvalidMessage
from schemas.failure_reports import Report
from schemas.requests import CitizenReport

log = get_logger("scheduler")

ChoreFunction = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Chore:
    """Something else that is done again and again: dead letters, replays, retention."""

    duty: ChoreFunction
    every_seconds: float


class Scheduler:
    """One loop for each kind of duty, so that none of them waits for another."""

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
        duties = (
            *(Chore(each, tick) for each in (self.sweep, self.verify, self.announce, self.announce_reports)),
            *self._chores,
        )
        async with asyncio.TaskGroup() as loops:
            loops.create_task(
                self._again_and_again(self.deliver, lambda: self._ledger.reports.wake.wait(tick))
            )
            for chore in duties:
                pause = partial(asyncio.sleep, chore.every_seconds)
                loops.create_task(self._again_and_again(chore.duty, pause))

    async def _again_and_again(self, duty: ChoreFunction, pause: Callable[[], Awaitable[object]]) -> None:
        """Nothing ends this but the process's stop: a library's stray cancellation is no stop either."""
        me = asyncio.current_task()
        while me is None or not me.cancelling():  # a library may have swallowed the cancellation of a stop
            try:
                await duty()
                await pause()
                continue
            except LedgerAway:
                await self._ledger.availability.wait_until_back()
            except RabbitAway as away:
                log.warning("rabbit-away", reason=away)
            except asyncio.CancelledError:
                if me is None or me.cancelling():
                    raise
                log.warning("stray-cancellation")
            except Exception:
                log.exception("scheduler-bug")
            await asyncio.sleep(self._settings.scheduler.tick_seconds)

    # -- reports ---------------------------------------------------------------------------------------------

    async def deliver(self) -> None:
        """Hand due reports over to their lanes, as much as each lane takes."""
        for joinable in await self._ledger.reports.joins.joinable(self._settings.scheduler.batch):
            await self._ledger.reports.joins.join(joinable.report_id, content_of(joinable))
        handed = await self._ledger.reports.handover.hand_over(self._limits())
        await asyncio.gather(*(self._hand_over(each) for each in handed))

    def _limits(self) -> dict[str, LaneLimits]:
        lanes = {
            name: config.lane(self._settings) for name, config in self._systems.directory.suppliers.items()
        }
        return {name: LaneLimits(lane.window, lane.rate_per_second) for name, lane in lanes.items()}

    async def _hand_over(self, handed: HandedOver) -> None:
        if not await self._publisher.hand_over(handed):
            log.warning("given-back", report_id=handed.report_id, supplier=handed.supplier)
            await self._ledger.reports.handover.revert(handed)

    # -- bookings --------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Take back what dead processes left behind."""
        swept = await self._ledger.verifications.sweep(self._abandoned) + await self._ledger.reports.sweep()
        if swept:
            log.warning("swept", count=swept)

    async def verify(self) -> None:
        """Look uncertain bookings up."""
        claims = await self._ledger.verifications.due(self._settings.verification.batch)
        await asyncio.gather(*(self._verify(claim) for claim in claims))

    async def announce(self) -> None:
        """Tell the outcomes of bookings that no arrival will tell; one that cannot be told stays due."""
        due = await self._ledger.events.due(self._settings.scheduler.batch)
        told = await _told((event.request_id, self._publisher.announce_due(event)) for event in due)
        await self._ledger.events.mark_sent(told)

    async def announce_reports(self) -> None:
        """Tell what became of reports."""
        due = await self._ledger.reports.events.due(self._settings.scheduler.batch)
        told = await _told((event.report_id, self._publisher.announce_report(event)) for event in due)
        await self._ledger.reports.events.mark_sent(told)

    def _abandoned(self, claim: Claim) -> StoredAnswer:
        return abandoned(claim, Addressee.of(self._systems.directory, claim.supplier))

    async def _verify(self, claim: Claim) -> None:
        try:
            await self._verifier.verify(claim)
        except LedgerAway:
            raise
        except Exception:
            log.exception("verification-bug", request_id=claim.request_id)
            await self._ledger.verifications.postpone(
                claim, self._settings.verification.longest_pause_seconds
            )


async def _told(events: Iterable[tuple[UUID, Awaitable[None]]]) -> list[UUID]:
    """Publish all together; the ids of those that RabbitMQ has taken. What was not taken stays due."""
    ids, publishes = zip(*events, strict=True) if (events := list(events)) else ((), ())
    ends = await asyncio.gather(*publishes, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException) and not isinstance(end, RabbitAway):
            raise end
    told = [id_ for id_, end in zip(ids, ends, strict=True) if end is None]
    if len(told) < len(ends):
        log.warning("events-not-told", count=len(ends) - len(told))
    return told


def abandoned(claim: Claim, addressee: Addressee) -> StoredAnswer:
    """The ending of a claim whose process died and whose deadline is over.

    Of a booking nobody knows, so it is `uncertain`. A citizen's report called nobody: it is received now.
    """
    now = datetime.now(UTC)
    message = opened(claim)
    if isinstance(message, CitizenReport):
        return ending_of(
            message, done(message, receipt_of(message), now), addressee, traceparent=claim.traceparent
        )
    answer = Answer.uncertain(claim, now=now)
    return StoredAnswer(answer.status, answer.to_json(), last_sent_at=claim.deadline_at)


def content_of(joinable: Joinable) -> bytes:
    """A citizen's report with what its failed request adds (DESIGN 6); what no model reads adds nothing."""
    if joinable.failed is None or joinable.failed_type not in ROUTES:
        return joinable.content
    try:
        failed = ROUTES[joinable.failed_type].message.from_json(joinable.failed)
        return joined(Report.from_json(joinable.content), failed).to_json()
    except InvalidMessage:
        log.error("report-not-joined", report_id=joinable.report_id)
        return joinable.content
