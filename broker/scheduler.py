"""Hands over due work: reports to their lanes, uncertain bookings to verification, outcome events to RabbitMQ; frees
orphans of dead processes.

Every process runs one scheduler; the ledger hands each row to one of them. After a failure here the row is still due
in the ledger, so nothing is lost (docs/architecture.md#scheduler).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from pydantic import ValidationError

from broker.clients import Systems
from broker.errors import LedgerAway, RabbitAway
from broker.handlers.citizen_reports import receipt_of
from broker.ledger.ledger import Ledger
from broker.ledger.model import Claim, StoredAnswer
from broker.ledger.reports.report_model import HandedOver, Joinable, LaneLimits
from broker.publisher import Publisher
from broker.reports.enrichment import Addressee, joined, stored_answer_of
from broker.requests.routes import ROUTES
from broker.requests.verifier import Verifier, opened
from broker.settle import done
from broker.telemetry.log import get_logger
from config.settings import Settings
from schemas.answers import Answer
from schemas.envelope import InvalidMessage, Request
from schemas.failure_reports import Report
from schemas.requests import CitizenReport

log = get_logger("scheduler")

ChoreFunction = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Chore:
    """A periodic task: dead letters, replays, retention."""

    run: ChoreFunction
    every_seconds: float


class Scheduler:
    """One loop for each kind of work, so that a slow kind does not delay another."""

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
            loops.create_task(self._repeat(self.deliver, lambda: self._ledger.reports.wake.wait(tick)))
            for chore in duties:
                pause = partial(asyncio.sleep, chore.every_seconds)
                loops.create_task(self._repeat(chore.run, pause))

    async def _repeat(self, duty: ChoreFunction, pause: Callable[[], Awaitable[object]]) -> None:
        """Run `duty` after each pause until the process stops."""
        task = asyncio.current_task()
        # A library may swallow the cancellation of a stop, or cancel us by mistake: `cancelling` tells the two apart.
        while task is None or not task.cancelling():
            try:
                await duty()
                await pause()
                continue
            except LedgerAway:
                await self._ledger.availability.wait_until_back()
            except RabbitAway as away:
                log.warning("rabbit-away", reason=away)
            except asyncio.CancelledError:
                if task is None or task.cancelling():
                    raise
                log.warning("unexpected-cancellation")
            except Exception:
                log.exception("scheduler-bug")
            await asyncio.sleep(self._settings.scheduler.tick_seconds)

    # -- reports ---------------------------------------------------------------------------------------------

    async def deliver(self) -> None:
        """Hand due reports over to their lanes, up to each lane's window."""
        for joinable in await self._ledger.reports.joins.joinable(self._settings.scheduler.batch):
            await self._join(joinable)
        handed_over = await self._ledger.reports.handover.hand_over(self._limits())
        await asyncio.gather(*(self._hand_over(each) for each in handed_over))

    async def _join(self, joinable: Joinable) -> None:
        """Make a citizen's report due, completed and corrected from its failed request."""
        try:
            failed = failed_of(joinable)
            stated = Report.from_json(joinable.content) if failed else None
        except InvalidMessage:
            log.error("report-not-enriched", report_id=joinable.report_id)
            failed = stated = None
        if failed is None or stated is None:
            await self._ledger.reports.joins.join(joinable.report_id, None)
            return
        report = joined(stated, failed, answer_of(joinable))
        first = await self._ledger.reports.joins.join(
            joinable.report_id, report.to_json(), int(report.error_code), report.occurred_at
        )
        if first and report.error_code is not stated.error_code:
            log.warning(
                "report-code-corrected",
                report_id=report.report_id,
                request_id=report.request_id,
                type=report.type,
                error_code=report.error_code,
                reason=f"fejlkode {stated.error_code} is not possible for the failed request",
            )

    def _limits(self) -> dict[str, LaneLimits]:
        lanes = {
            name: config.lane(self._settings.reports)
            for name, config in self._systems.directory.suppliers.items()
        }
        return {name: LaneLimits(lane.window, lane.rate_per_second) for name, lane in lanes.items()}

    async def _hand_over(self, handed_over: HandedOver) -> None:
        if not await self._publisher.hand_over(handed_over):
            log.warning("handover-reverted", report_id=handed_over.report_id, supplier=handed_over.supplier)
            await self._ledger.reports.handover.revert(handed_over)

    # -- bookings --------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Free requests and reports whose process died."""
        freed = await self._ledger.verifications.sweep(self._abandoned) + await self._ledger.reports.sweep()
        if freed:
            log.warning("orphans-freed", count=freed)

    async def verify(self) -> None:
        """Verify uncertain bookings that are due."""
        claims = await self._ledger.verifications.due(self._settings.verification.batch)
        await asyncio.gather(*(self._verify(claim) for claim in claims))

    async def announce(self) -> None:
        """Publish due outcome events of bookings; an event that RabbitMQ does not take stays due."""
        due = await self._ledger.events.due(self._settings.scheduler.batch)
        published = await _published((event.request_id, self._publisher.announce_due(event)) for event in due)
        await self._ledger.events.mark_sent(published)

    async def announce_reports(self) -> None:
        """Publish due outcome events of reports."""
        due = await self._ledger.reports.events.due(self._settings.scheduler.batch)
        published = await _published(
            (event.report_id, self._publisher.announce_report(event)) for event in due
        )
        await self._ledger.reports.events.mark_sent(published)

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


async def _published(events: Iterable[tuple[UUID, Awaitable[None]]]) -> list[UUID]:
    """Publish all concurrently; the ids of the events that RabbitMQ confirmed. The others stay due."""
    ids, publishes = zip(*events, strict=True) if (events := list(events)) else ((), ())
    ends = await asyncio.gather(*publishes, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException) and not isinstance(end, RabbitAway):
            raise end
    published = [id_ for id_, end in zip(ids, ends, strict=True) if end is None]
    if len(published) < len(ends):
        log.warning("outcome-events-not-announced", count=len(ends) - len(published))
    return published


def abandoned(claim: Claim, addressee: Addressee) -> StoredAnswer:
    """The answer to store for a claim whose process died and whose deadline is over.

    A booking's outcome is unknown: `uncertain`. A citizen's report makes no external call: `done`.
    """
    now = datetime.now(UTC)
    message = opened(claim)
    if isinstance(message, CitizenReport):
        return stored_answer_of(
            message, done(message, receipt_of(message), now), addressee, traceparent=claim.traceparent
        )
    answer = Answer.uncertain(claim, now=now)
    return StoredAnswer(answer.status, answer.to_json(), last_sent_at=claim.deadline_at)


def failed_of(joinable: Joinable) -> Request | None:
    """The failed request; None without one that this release knows. Raises InvalidMessage."""
    if joinable.failed is None or joinable.failed_type not in ROUTES:
        return None
    return ROUTES[joinable.failed_type].message.from_json(joinable.failed)


def answer_of(joinable: Joinable) -> Answer | None:
    """The answer to the failed request; None if there is none yet, or another release's."""
    try:
        answer = joinable.failed_answer
        return Answer.model_validate_json(answer) if answer is not None else None
    except ValidationError:
        return None
