"""What becomes of one arrival, as a value: what replaces the message in RabbitMQ, and what is recorded about it.

Execution and pipeline decide it, the pipeline alone acts on it. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from broker.ledger.model import Settled
from broker.publisher import event_of
from broker.requests.routes import RoutedRequest
from broker.settle import Settlement
from schemas.answers import Answer
from schemas.codes import Reason, Status
from schemas.envelope import FieldProblem, InvalidMessage, Request
from schemas.outcome_events import Outcome, OutcomeEvent


@dataclass(frozen=True, slots=True)
class SendAnswer:
    """Answer the frontend; `event` tells the same outcome on `jobnet.outcomes`, without personal data."""

    body: bytes = field(repr=False)
    event: OutcomeEvent


@dataclass(frozen=True, slots=True)
class SendDeadLetter:
    """Keep the message for a person. `problems` name the invalid fields."""

    reason: str
    problems: tuple[FieldProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class SendToQuarantine:
    """Move the message to the suspect queue, where it is handled alone."""


Replacement = SendAnswer | SendDeadLetter | SendToQuarantine


@dataclass(frozen=True, slots=True)
class Handled:
    """What becomes of one arrival.

    `replacements` are published in this order, each confirmed, before the message is acknowledged.
    `outcome` is the answer's status, or `dead` for a dead letter without an answer; None if the request was not
    handled here (it was quarantined, or it killed too many processes), so that it is not counted as handled.
    """

    replacements: tuple[Replacement, ...]
    outcome: str | None = None
    message: Request | None = None
    settlement: Settlement | None = None
    error_code: int | None = None

    @classmethod
    def quarantined(cls) -> Self:
        """Processes died at it: it is handled alone first."""
        return cls((SendToQuarantine(),))

    @classmethod
    def crashed(cls) -> Self:
        """It killed processes on the suspect queue too: only a person may touch it now."""
        return cls((SendDeadLetter("crash"),))

    @classmethod
    def dead(cls, reason: str, *problems: FieldProblem, message: Request | None = None) -> Self:
        """Nobody can be answered, or nothing could be read."""
        return cls((SendDeadLetter(reason, problems),), outcome="dead", message=message)

    @classmethod
    def invalid(cls, invalid: InvalidMessage, type_: str | None) -> Self:
        """Refused by the names of its fields. Its event has no requestId: the id itself was not checked."""
        now = datetime.now(UTC)
        answer = Answer.refused(invalid.request_id, type_, Reason.INVALID, invalid.problems, now=now)
        event = OutcomeEvent(type=answer.type, outcome=Outcome.REFUSED, reason=answer.reason, occurred_at=now)
        return cls(
            (SendAnswer(answer.to_json(), event),),
            outcome=Status.REFUSED.value,
            settlement=Settlement(answer, cause=Reason.INVALID.value),
        )

    @classmethod
    def answered(cls, request: RoutedRequest, settlement: Settlement) -> Self:
        """Answered without a row of the ledger behind it: a query, a conflict, a bug."""
        answer = settlement.answer
        event = OutcomeEvent(
            # The id of a conflict is another request's, which may be done: no event may call that one refused (ADR 4).
            request_id=None if answer.reason is Reason.CONFLICT else request.message.request_id,
            type=request.message.TYPE,
            outcome=Outcome(answer.status.value),
            reason=answer.reason,
            error_code=answer.error_code,
            jobcenter_code=request.message.jobcenter_code,
            system=settlement.call_facts.system if settlement.call_facts else None,
            supplier=request.jobcenter.supplier if request.jobcenter else None,
            occurred_at=answer.answered_at,
        )
        return cls(
            (SendAnswer(answer.to_json(), event),),
            outcome=answer.status.value,
            message=request.message,
            settlement=settlement,
            error_code=answer.error_code,
        )

    @classmethod
    def stored(cls, request: RoutedRequest, settled: Settled, settlement: Settlement | None) -> Self:
        """Answered with the ledger's row. `settlement`: how it ended, if it ended by this arrival."""
        event = event_of(request.message.request_id, settled.ending, settled.facts)
        return cls(
            (SendAnswer(settled.ending.answer, event),),
            outcome=settled.ending.status.value,
            message=request.message,
            settlement=settlement,
            error_code=event.error_code,
        )
