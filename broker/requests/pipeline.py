"""The story of one request, from its arrival to its acknowledgement (docs/architecture.md#one-way-through):

    arrival -> validate -> route -> claim -> handle (call out) -> settle in the ledger -> publish the answer -> ack

Every replacement of the message (answer, dead letter, copy on the suspect queue) is confirmed by RabbitMQ before the
message is acknowledged. Without a confirm there is no acknowledgement, and RabbitMQ delivers the message again.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic

from broker.clients import Systems
from broker.clients.calls import is_traceparent
from broker.errors import LedgerAway, RabbitAway
from broker.publisher import Publisher, home_of
from broker.rabbitmq import Arrival, Published
from broker.rabbitmq.topology import CITIZEN_REPORTS, SUSPECTS
from broker.reports.enrichment import NOBODY, Addressee
from broker.requests.disposition import Handled, Replacement, SendAnswer, SendDeadLetter, SendToQuarantine
from broker.requests.execution import Execution
from broker.requests.request_spans import end_span
from broker.requests.routes import ROUTES, RoutedRequest
from broker.settle import Settlement
from broker.telemetry.counters import COUNTERS
from broker.telemetry.log import get_logger
from config.settings import Settings
from schemas.answers import Answer
from schemas.codes import Reason
from schemas.envelope import FieldProblem, InvalidMessage, Request
from schemas.outcome_events import OutcomeEvent
from schemas.requests import read_request

log = get_logger("pipeline")

WRONG_QUEUE = "is carried on another queue; publish to jobnet.requests with the type as routing key"
NO_REPLY_TO = "must name the queue that waits for the answer, and match an allowed pattern"

DELIVERIES_MOST = 3
"""A message delivered so often kills its process before it is claimed: handled alone, then a dead letter."""


class Pipeline:
    """Handles arrivals of requests."""

    def __init__(
        self,
        settings: Settings,
        systems: Systems,
        execution: Execution,
        publisher: Publisher,
    ) -> None:
        self._settings = settings
        self._systems = systems
        self._execution = execution
        self._publisher = publisher

    async def carry(self, arrival: Arrival) -> None:
        """Decide, publish what replaces the message (confirmed), acknowledge, record. The only ack in this file.

        Raises only for a bug or the stop of this process; the message is then delivered again.
        """
        began = monotonic()
        COUNTERS.arrived(arrival.type)
        handled = await self._handle(arrival)
        if handled.outcome is None:
            _log_crash_guard(arrival, handled)  # now: a full queue may hold up the publish for long
        published = [await self._publish(arrival, replacement) for replacement in handled.replacements]
        acked = await arrival.ack()
        self._record(arrival, handled, published[-1], acked=acked, began=began)

    async def _handle(self, arrival: Arrival) -> Handled:
        """Validate, route, execute (claim, handle, settle). Publishes nothing."""
        if arrival.delivery_count >= DELIVERIES_MOST:
            return Handled.crashed() if arrival.queue == SUSPECTS else Handled.quarantined()
        answerable = self._settings.answers.allows(arrival.reply_to)
        try:
            message = self._validate(arrival)
        except InvalidMessage as invalid:
            if answerable:
                return Handled.invalid(invalid, arrival.type)
            return Handled.dead("invalid", *invalid.problems)
        except Exception:
            log.exception("reading-bug", queue=arrival.queue)
            return Handled.dead("bug")
        if not answerable:
            problem = FieldProblem(field="reply_to", problem=NO_REPLY_TO)
            return Handled.dead("no-reply-to", problem, message=message)
        request = self._route(arrival, message)
        try:
            return await self._execution.run(request)
        except LedgerAway:
            raise  # this process stops: nothing is known and nothing is told; the message is delivered again
        except Exception as bug:
            return self._after_bug(request, bug)

    def _validate(self, arrival: Arrival) -> Request:
        """The message. Raises InvalidMessage, also for a type that belongs on another queue."""
        message = read_request(
            arrival.type,
            arrival.content_type,
            arrival.body,
            now=datetime.now(UTC),
            skew=timedelta(seconds=self._settings.requests.clock_skew_seconds),
            max_bytes=self._settings.queues.max_body_bytes,
        )
        if ROUTES[message.TYPE].queue != home_of(arrival):
            problem = FieldProblem(field="type", problem=WRONG_QUEUE)
            raise InvalidMessage(problem, request_id=message.request_id)
        return message

    def _route(self, arrival: Arrival, message: Request) -> RoutedRequest:
        """Its route, its jobcenter, its deadline; and the refusal that needs no call (R1)."""
        route = ROUTES[message.TYPE]
        directory = self._systems.directory
        jobcenter = directory.jobcenter(message.jobcenter_code)
        refusal = None if jobcenter or route.queue == CITIZEN_REPORTS else Reason.UNKNOWN_JOBCENTER
        if route.needs_contact_group and not getattr(message, "contact_group", None):
            refusal = Reason.NO_CONTACT_GROUP
        deadline_at = message.effective_deadline(timedelta(seconds=self._settings.requests.patience_seconds))
        left = deadline_at - datetime.now(UTC)
        margin = self._settings.requests.answer_margin_seconds
        traceparent = arrival.headers.get("traceparent")
        return RoutedRequest(
            message=message,
            route=route,
            jobcenter=jobcenter,
            addressee=Addressee.of(directory, jobcenter.supplier) if jobcenter else NOBODY,
            suspect=arrival.queue == SUSPECTS,
            traceparent=traceparent if is_traceparent(traceparent) else None,
            deadline_at=deadline_at,
            answer_by=monotonic() + left.total_seconds() - margin,
            refusal=refusal,
        )

    @staticmethod
    def _after_bug(request: RoutedRequest, bug: Exception) -> Handled:
        """A bug leaves the fate of a request open: a person looks, and the citizen is told `uncertain`."""
        answer = Answer.uncertain(request.message, now=datetime.now(UTC))
        answered = Handled.answered(request, Settlement(answer, cause="bug", ours=True, bug=bug))
        return replace(answered, replacements=(SendDeadLetter("bug"), *answered.replacements))

    async def _publish(self, arrival: Arrival, replacement: Replacement) -> Published:
        """Publish one replacement; returns when RabbitMQ has confirmed it."""
        match replacement:
            case SendAnswer(body, event):
                return await self._answer(arrival, body, event)
            case SendDeadLetter(reason, problems):
                await self._publisher.dead_letter(arrival, reason, problems)
            case SendToQuarantine():
                await self._publisher.move_to_suspects(arrival)
        return Published.CONFIRMED

    async def _answer(self, arrival: Arrival, body: bytes, event: OutcomeEvent) -> Published:
        announcing = asyncio.create_task(self._announce(event))
        try:
            published = await self._publisher.answer(arrival, body)
            await announcing
            return published
        finally:
            announcing.cancel()  # does nothing to a finished task; it is unfinished only when the process stops

    async def _announce(self, event: OutcomeEvent) -> None:
        """Announce, or leave the event due in the ledger: a missing exchange must not hold up the answer."""
        try:
            await self._publisher.announce(event)
        except RabbitAway as away:
            log.error(
                "outcome-not-announced", request_id=event.request_id, outcome=event.outcome, reason=away
            )
            if event.request_id is not None:
                await self._execution.announce_later(event.request_id)

    @staticmethod
    def _record(
        arrival: Arrival, handled: Handled, published: Published, *, acked: bool, began: float
    ) -> None:
        """Counters, span and the one log line of this message."""
        if handled.outcome is None:
            return
        COUNTERS.answered(arrival.type, handled.outcome, handled.error_code, began)
        end_span(handled.outcome, handled.message.request_id if handled.message else None)
        line = {name: value for name, value in _facts(arrival, handled).items() if value is not None}
        if published is not Published.CONFIRMED:
            line["answer"] = published.name.lower()
        if not acked:
            line["acked"] = False
        line["milliseconds"] = int((monotonic() - began) * 1000)
        bug = handled.settlement.bug if handled.settlement else None
        if bug is not None:
            log.error("request-handled", **line, exc_info=bug)
        else:
            log.info("request-handled", **line)


def _log_crash_guard(arrival: Arrival, handled: Handled) -> None:
    """The log line of a message at which processes died."""
    if isinstance(handled.replacements[0], SendToQuarantine):
        log.warning("request-quarantined", queue=arrival.queue, count=arrival.delivery_count)
    else:
        log.error("request-dead-after-crashes", queue=home_of(arrival), count=arrival.delivery_count)


def _facts(arrival: Arrival, handled: Handled) -> dict[str, object]:
    """Everything that one log line says about a request; None for a fact that it has not."""
    message, settlement = handled.message, handled.settlement
    call = settlement.call_facts if settlement else None
    return {
        "request_id": message.request_id if message else None,
        "type": message.TYPE if message else None,
        "jobcenter": message.jobcenter_code if message else None,
        "queue": arrival.queue,
        "outcome": handled.outcome,
        "cause": settlement.cause if settlement else None,
        "error_code": settlement.answer.error_code if settlement else None,
        "system": call.system if call else None,
        "step": call.step if call else None,
        "what": call.what if call else None,
        "status": call.status if call else None,
        "redelivered": arrival.redelivered or None,
    }
