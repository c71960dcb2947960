"""Publishes answers, outcome events, lane messages and dead letters, with retries.

A publish returns when RabbitMQ has confirmed it or has refused it. A lost connection is waited for until the process
stops, because the message behind the publish is acknowledged only afterwards.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_attempt,
    stop_never,
)
from tenacity.wait import wait_random_exponential

from broker.dead_letters.headers import (
    FIELDS,
    LETTER_ID,
    LETTER_TYPE,
    QUEUE,
    REASON,
    properties_header,
    properties_of,
)
from broker.errors import RabbitAway
from broker.ledger.model import DueEvent, RequestFacts, StoredAnswer
from broker.ledger.reports.report_model import DueReportEvent, HandedOver
from broker.rabbitmq import Arrival, Outgoing, Published, Rabbit
from broker.rabbitmq.topology import OUTCOMES, SUSPECTS, WORK_QUEUES, dead_queue_of, lane_of
from broker.retries import retry_from
from broker.sealing import Sealer
from broker.telemetry.log import get_logger
from schemas.answers import ANSWER_TYPE
from schemas.codes import ErrorCode, Reason
from schemas.envelope import FieldProblem
from schemas.failure_reports import LANE_TYPE, LaneMessage
from schemas.outcome_events import OUTCOME_TYPE, Outcome, OutcomeEvent

log = get_logger("publishing")

LONGEST_PAUSE = 5.0
"""Maximum seconds between two tries of one publish; with jitter, so that processes do not retry in step."""
EVENT_TRIES = 5
"""Tries of an outcome event; after them it stays due in the ledger."""
ANSWER_TRIES = 3
"""Tries while the answer queue is full; after them the answer stays in the ledger for a repeated request."""


class Publisher:
    """The only part that publishes. Every method returns after RabbitMQ's confirm, or returns or raises its refusal."""

    def __init__(self, rabbit: Rabbit, sealer: Sealer) -> None:
        self._rabbit = rabbit
        self._sealer = sealer

    async def answer(self, arrival: Arrival, body: bytes) -> Published:
        """Answer at the arrival's `reply_to`. UNROUTABLE or REFUSED for a queue that is missing or stays full."""
        out = Outgoing(
            exchange="",
            routing_key=arrival.reply_to or "",
            body=body,
            type=ANSWER_TYPE,
            correlation_id=arrival.correlation_id,
        )
        try:
            published = await self._insist(out)
            for _ in range(ANSWER_TRIES - 1):
                if published is not Published.REFUSED:
                    break
                await asyncio.sleep(LONGEST_PAUSE / 10)
                published = await self._insist(out)
        except (ValueError, TypeError):  # an address or correlation id that AMQP cannot carry
            return Published.UNROUTABLE
        return published

    async def announce(self, event: OutcomeEvent) -> None:
        """Publish an outcome event. No listener is needed, and a listener whose queue is full loses the event.

        Raises RabbitAway after EVENT_TRIES: the exchange may be missing while everything else works.
        """
        body = event.to_json()
        out = Outgoing(OUTCOMES, event.routing_key, body, OUTCOME_TYPE, mandatory=False)
        await self._insist(out, tries=EVENT_TRIES)

    async def announce_due(self, due: DueEvent) -> None:
        """Publish the outcome of a request that has no arrival in this process."""
        await self.announce(event_of_due(due))

    async def hand_over(self, handed: HandedOver) -> bool:
        """Publish a due report to its lane: an id and a number, nothing personal. False: not confirmed, so revert it."""
        message = LaneMessage(report_id=handed.report_id, number=handed.number, supplier=handed.supplier)
        out = Outgoing("", lane_of(handed.supplier), message.to_json(), LANE_TYPE)
        try:
            return await self._rabbit.publish(out) is Published.CONFIRMED
        except RabbitAway:
            return (
                False  # it may have arrived all the same; its number is void once the hand-over is reverted
            )

    async def announce_report(self, due: DueReportEvent) -> None:
        """Publish the outcome of a report, without personal data."""
        await self.announce(
            OutcomeEvent(
                request_id=due.request_id,
                report_id=due.report_id,
                type=due.type,
                outcome=Outcome(due.outcome),
                cause=due.cause,
                error_code=ErrorCode(due.error_code),
                jobcenter_code=due.jobcenter_code,
                supplier=due.supplier,
                occurred_at=due.occurred_at,
            )
        )

    async def move_to_suspects(self, arrival: Arrival) -> None:
        """Copy a message to the suspect queue unchanged, with the name of its own queue in a header."""
        headers = {QUEUE: arrival.queue}
        if isinstance(traceparent := arrival.headers.get("traceparent"), str):
            headers["traceparent"] = traceparent
        out = Outgoing(
            "",
            SUSPECTS,
            arrival.body,
            arrival.type,
            correlation_id=arrival.correlation_id,
            headers=headers,
            reply_to=arrival.reply_to,
            content_type=arrival.content_type,
        )
        await self._until_taken(out)

    async def dead_letter(self, arrival: Arrival, reason: str, problems: tuple[FieldProblem, ...]) -> None:
        """Publish to the dead-letter queue: body encrypted, names of the invalid fields in clear."""
        letter_id = str(uuid4())
        fields = ",".join(p.field for p in problems)[:500]
        headers = {
            REASON: reason,
            FIELDS: fields,
            QUEUE: home_of(arrival),
            "x-jobnet-died-at": datetime.now(UTC).isoformat(),
        }
        properties = properties_of(arrival).to_json()  # a replay publishes the same message
        headers |= properties_header(self._sealer.seal(properties, of=letter_id, field="properties"))
        sealed = self._sealer.seal(arrival.body, of=letter_id, field="body")
        await self._letter(home_of(arrival), letter_id, sealed, headers)

    async def _letter(self, queue: str, letter_id: str, body: bytes, headers: dict[str, str]) -> None:
        headers = {LETTER_ID: letter_id, **headers}
        await self._until_taken(Outgoing("", dead_queue_of(queue), body, LETTER_TYPE, headers=headers))

    async def _until_taken(self, out: Outgoing) -> None:
        """Publish until confirmed; a queue that is full or missing is logged at each try."""
        retrying = AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE),
            retry=retry_if_result(lambda published: published is not Published.CONFIRMED),
            before_sleep=lambda _: log.error("queue-rejects-message", queue=out.routing_key),
        )
        await retrying(self._insist, out)

    async def _insist(self, out: Outgoing, *, tries: int | None = None) -> Published:
        """Publish on the current connection until RabbitMQ confirms or refuses (or `tries` times)."""
        try:
            return await self._rabbit.publish(out)
        except RabbitAway as away:
            return await self._insist_further(out, away, tries)

    async def _insist_further(self, out: Outgoing, first: RabbitAway, tries: int | None) -> Published:
        """The tries after the first one; most publishes need none, and tenacity costs more than a publish."""
        policy = AsyncRetrying(
            stop=stop_after_attempt(tries) if tries else stop_never,
            reraise=True,
            wait=wait_random_exponential(multiplier=0.1, max=LONGEST_PAUSE),
            retry=retry_if_exception_type(RabbitAway),
            before_sleep=lambda state: log.warning(
                "publish-retried", type=out.type, attempt=state.attempt_number
            ),
        )
        return await retry_from(first, lambda: self._rabbit.publish(out), policy)


def home_of(arrival: Arrival) -> str:
    """The work queue a message belongs to; on the suspect queue a header names it."""
    home = arrival.headers.get(QUEUE) if arrival.queue == SUSPECTS else None
    return home if isinstance(home, str) and home in WORK_QUEUES else arrival.queue


def event_of(request_id: UUID, stored: StoredAnswer, facts: RequestFacts) -> OutcomeEvent:
    """The outcome event of a stored request."""
    due = DueEvent(
        request_id=request_id,
        type=facts.type,
        outcome=stored.status.value,
        reason=stored.reason,
        error_code=stored.error_code,
        jobcenter_code=facts.jobcenter_code,
        booking_system=facts.booking_system,
        supplier=facts.supplier,
        corrects_uncertain=facts.corrected,
        occurred_at=facts.settled_at,
    )
    return event_of_due(due)


def event_of_due(due: DueEvent) -> OutcomeEvent:
    """The outcome event of a request, without personal data."""
    return OutcomeEvent(
        request_id=due.request_id,
        type=due.type,
        outcome=Outcome(due.outcome),
        reason=Reason(due.reason) if due.reason else None,
        error_code=ErrorCode(due.error_code) if due.error_code else None,
        jobcenter_code=due.jobcenter_code,
        system=due.booking_system or None,
        supplier=due.supplier or None,
        corrects_uncertain=due.corrects_uncertain,
        occurred_at=due.occurred_at,
    )
