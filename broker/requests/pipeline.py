"""The story of one arrival, ack last (DESIGN 5):

    arrival -> validate -> claim -> handle (call out) -> settle in the ledger -> publish the answer, confirmed -> ack

There is one exit. Whatever stands in for the message (an answer, a dead letter) is confirmed by RabbitMQ before the
arrival is acknowledged; what could not be confirmed is not acknowledged and comes back.
"""

from __future__ import annotations

import asyncio
import fnmatch
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import monotonic

from broker.clients import Systems
from broker.clients.calls import is_traceparent
from broker.clients.http import Caller
from broker.errors import BrokerError, RabbitAway
from broker.publisher import Publisher, event_of, home_of
from broker.rabbitmq import Arrival, Published
from broker.rabbitmq.topology import CITIZEN_REPORTS, SUSPECTS
from broker.reports.enrichment import NOBODY, Addressee
from broker.requests.execution import Execution, RoutedRequest, Unconcluded
from broker.requests.request_spans import end_span, handling
from broker.requests.routes import ROUTES
from broker.settle import Settlement, done, expired, refused, settle
from broker.telemetry.counters import COUNTERS
from broker.telemetry.log import get_logger
from config.settings import Settings
from schemas.answers import Answer
from schemas.codes import Reason, Status
from schemas.envelope import FieldProblem, InvalidMessage, Request
from schemas.outcome_events import Outcome, OutcomeEvent
from schemas.requests import read_request

log = get_logger("pipeline")

WRONG_QUEUE = "is carried on another queue; publish to jobnet.requests with the type as routing key"
NO_REPLY_TO = "must name the queue that waits for the answer, and match an allowed pattern"


DELIVERIES_MOST = 3
"""An arrival that came back so often is handled alone, and on the suspect queue not at all (DESIGN 8)."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is said about one arrival: the answer's bytes, the outcome event, and how it came about."""

    answer: bytes
    event: OutcomeEvent
    outcome: str
    settlement: Settlement | None = None


class Pipeline:
    """Carries arrivals of requests."""

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
        patterns = "|".join(fnmatch.translate(p) for p in settings.answers.allowed_reply_to)
        self._allowed_reply_to = re.compile(patterns)

    async def carry(self, arrival: Arrival) -> None:
        """One arrival from validation to acknowledgement; raises only what is a bug or the process's stop."""
        began = monotonic()
        COUNTERS.arrived(arrival.type)
        if arrival.delivery_count >= DELIVERIES_MOST:
            await self._stop(arrival)
            return
        answerable = self._allowed_reply_to.fullmatch(arrival.reply_to or "") is not None
        message: Request | None = None
        told: Told | None = None
        try:
            message = self._read(arrival)
        except InvalidMessage as invalid:
            if answerable:
                told = self._invalid(arrival, invalid)
            else:
                await self._publisher.dead_letter(arrival, "invalid", invalid.problems)
        except Exception:
            log.exception("reading-bug", queue=arrival.queue)
            await self._publisher.dead_letter(arrival, "bug", ())
        else:
            if not answerable:
                problem = FieldProblem(field="reply_to", problem=NO_REPLY_TO)
                await self._publisher.dead_letter(arrival, "no-reply-to", (problem,))
            elif (told := await self._acted(arrival, message)) is None:
                await self._set_apart(arrival)
                return
        sent = await self._tell(arrival, told) if told else None
        acked = await arrival.ack()
        COUNTERS.answered(
            arrival.type, told.outcome if told else "dead", told.event.error_code if told else None, began
        )
        end_span(told.outcome if told else "dead", message.request_id if message else None)
        self._log(arrival, message, told, sent, acked, milliseconds=int((monotonic() - began) * 1000))

    async def _stop(self, arrival: Arrival) -> None:
        """What came again and again kills us before it is claimed, or was unlucky: alone, then a person's (DESIGN 8)."""
        if arrival.queue != SUSPECTS:
            await self._set_apart(arrival)
            return
        log.error("crash-letter", queue=home_of(arrival), count=arrival.delivery_count)
        await self._publisher.dead_letter(arrival, "crash", ())
        await arrival.ack()

    async def _set_apart(self, arrival: Arrival) -> None:
        log.warning("suspect", queue=arrival.queue, count=arrival.delivery_count)
        await self._publisher.move_to_suspects(arrival)
        await arrival.ack()

    def _read(self, arrival: Arrival) -> Request:
        """The validated message; one that came on another type's queue is as wrong as one that cannot be read."""
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

    def _errand(self, arrival: Arrival, message: Request) -> RoutedRequest:
        route = ROUTES[message.TYPE]
        directory = self._systems.directory
        jobcenter = directory.jobcenter(message.jobcenter_code)
        refusal = None if jobcenter or route.queue == CITIZEN_REPORTS else Reason.UNKNOWN_JOBCENTER
        if route.needs_contact_group and not getattr(message, "contact_group", None):
            refusal = Reason.NO_CONTACT_GROUP  # release note 3.3: before any call leaves
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

    async def _acted(self, arrival: Arrival, message: Request) -> Told | None:
        """What a bug of ours leaves open is put aside for a person, and told as what it is: uncertain."""
        errand = self._errand(arrival, message)
        try:
            return await self._act(errand)
        except Exception as bug:
            await self._publisher.dead_letter(arrival, "bug", ())
            answer = Answer.uncertain(message, now=datetime.now(UTC))
            return self._told(errand, Settlement(answer, cause="bug", ours=True, bug=bug))

    async def _act(self, errand: RoutedRequest) -> Told | None:
        """What there is to tell; None when it is to be handled alone first."""
        if not errand.route.claimed:
            settlement = await self._query(errand)
            if settlement.answer.status is Status.FAILED:
                await self._remember(errand, settlement)
            return self._told(errand, settlement)
        concluded = await self._execution.conclude(errand)
        if concluded is Unconcluded.SUSPECT:
            return None
        if concluded is Unconcluded.CONFLICT:
            conflict = self._told(errand, refused(errand.message, Reason.CONFLICT, datetime.now(UTC)))
            # The id is the other request's, which may be done: no event may call that one refused (ADR 4).
            return replace(conflict, event=conflict.event.model_copy(update={"request_id": None}))
        stored = concluded.stored
        event = event_of(errand.message.request_id, stored.ending, stored.facts)
        return Told(stored.ending.answer, event, stored.ending.status.value, concluded.settlement)

    async def _remember(self, errand: RoutedRequest, settlement: Settlement) -> None:
        """The answer does not hang on this: a query whose row is refused is answered all the same."""
        try:
            await self._execution.remember(errand, settlement)
        except BrokerError as refusal:
            log.error("failed-query-not-kept", request_id=errand.message.request_id, reason=refusal)

    async def _query(self, errand: RoutedRequest) -> Settlement:
        """Queries change nothing, so nothing is claimed, and a repeat asks again."""
        message, jobcenter = errand.message, errand.jobcenter
        now = datetime.now(UTC)
        if errand.late:
            return expired(message, now)
        if errand.refusal or jobcenter is None:
            return refused(message, errand.refusal or Reason.UNKNOWN_JOBCENTER, now)
        try:
            clients = self._systems.clients(jobcenter.planner, jobcenter.booking_system)
            asker = Caller.of(message, traceparent=errand.traceparent, answer_by=errand.answer_by)
            result = await handling(errand.route.handler)(message, asker, clients)
            return done(message, result, datetime.now(UTC))
        except Exception as error:
            return settle(message, error, datetime.now(UTC))

    def _told(self, errand: RoutedRequest, settlement: Settlement) -> Told:
        answer = settlement.answer
        event = OutcomeEvent(
            request_id=errand.message.request_id,
            type=errand.message.TYPE,
            outcome=Outcome(answer.status.value),
            reason=answer.reason,
            error_code=answer.error_code,
            jobcenter_code=errand.message.jobcenter_code,
            system=settlement.call_facts.system if settlement.call_facts else None,
            supplier=errand.jobcenter.supplier if errand.jobcenter else None,
            occurred_at=answer.answered_at,
        )
        return Told(answer.to_json(), event, answer.status.value, settlement)

    @staticmethod
    def _invalid(arrival: Arrival, invalid: InvalidMessage) -> Told:
        """Refused by the names of its fields. Its event carries no id: whose id it is was never checked."""
        now = datetime.now(UTC)
        answer = Answer.refused(invalid.request_id, arrival.type, Reason.INVALID, invalid.problems, now=now)
        event = OutcomeEvent(type=answer.type, outcome=Outcome.REFUSED, reason=answer.reason, occurred_at=now)
        return Told(answer.to_json(), event, answer.status.value, Settlement(answer, cause="invalid"))

    async def _tell(self, arrival: Arrival, told: Told) -> Published:
        announcing = asyncio.create_task(self._announce(told.event))
        try:
            sent = await self._publisher.answer(arrival, told.answer)
            await announcing
            return sent
        finally:
            announcing.cancel()  # it is done, unless the process stops

    async def _announce(self, event: OutcomeEvent) -> None:
        """An answer must not wait for ever because the outcomes' exchange is gone; its event is told when it is back."""
        try:
            await self._publisher.announce(event)
        except RabbitAway as away:
            log.error("outcome-not-told", request_id=event.request_id, outcome=event.outcome, reason=away)
            if event.request_id is not None:
                await self._execution.tell_later(event.request_id)

    @staticmethod
    def _log(
        arrival: Arrival,
        message: Request | None,
        told: Told | None,
        sent: Published | None,
        acked: bool,
        *,
        milliseconds: int,
    ) -> None:
        """The one line about this message; a bug adds its traceback (without locals, see `broker.telemetry.log`)."""
        settlement = told.settlement if told else None
        call_facts = settlement.call_facts if settlement else None
        facts = {
            "request_id": message.request_id if message else None,
            "type": message.TYPE if message else None,
            "jobcenter": message.jobcenter_code if message else None,
            "queue": arrival.queue,
            "outcome": told.outcome if told else "dead",
            "cause": settlement.cause if settlement else None,
            "error_code": settlement.answer.error_code if settlement else None,
            "system": call_facts.system if call_facts else None,
            "step": call_facts.step if call_facts else None,
            "what": call_facts.what if call_facts else None,
            "status": call_facts.status if call_facts else None,
            "redelivered": arrival.redelivered or None,
            "answer": sent.name.lower() if sent and sent is not Published.CONFIRMED else None,
            "acked": None if acked else False,
            "milliseconds": milliseconds,
        }
        line = {name: value for name, value in facts.items() if value is not None}
        if settlement is not None and settlement.bug is not None:
            log.error("carried", **line, exc_info=settlement.bug)
        else:
            log.info("carried", **line)
