"""What a result or an error becomes: pure judgement, no I/O (DESIGN 5, the table "what happened").

Clients report, this file judges, the pipeline acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.errors import (
    AtCapacity,
    BadMessage,
    CallFacts,
    Failure,
    Misconfigured,
    NothingOffered,
    NotSent,
    Refused,
    Unknown,
)
from schemas.answers import Answer, Result
from schemas.codes import ErrorCode, Reason
from schemas.envelope import Request

NOT_BOOKED = "not-booked"
"""The cause of a failure that verification proved."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a request ended.

    `cause` is one word of ours for the log; `call_facts` is what an external system said, if one was asked.
    `ours` marks a failure that our own limits, set-up or bugs made: a supplier is never told of it (DESIGN 5).
    """

    answer: Answer
    cause: str | None = None
    call_facts: CallFacts | None = None
    ours: bool = False
    last_sent_at: datetime | None = None
    bug: BaseException | None = None


def done(message: Request, result: Result, now: datetime) -> Settlement:
    """As the contract says."""
    return Settlement(Answer.done(message, result, now=now))


def refused(message: Request, reason: Reason, now: datetime) -> Settlement:
    """A business "no" of our own, decided before any call left."""
    return settle(message, Refused(reason), now)


def expired(message: Request, now: datetime) -> Settlement:
    """Came too late; nothing was called."""
    return Settlement(Answer.expired(message, now=now))


def not_carried_out(message: Request, now: datetime) -> Settlement:
    """Verification proved that an uncertain booking never happened."""
    return Settlement(Answer.failed(message, ErrorCode.OTHER, now=now), cause=NOT_BOOKED)


def settle(message: Request, error: Exception, now: datetime) -> Settlement:
    """Judge one error. The rows are those of DESIGN 5; anything that is not ours is a bug of ours."""
    match error:
        case Refused(reason=reason, fields=fields, call_facts=call_facts):
            answer = Answer.refused(message.request_id, message.TYPE, reason, fields, now=now)
            return Settlement(answer, cause=reason.value, call_facts=call_facts)
        case BadMessage(problems=problems):
            answer = Answer.refused(message.request_id, message.TYPE, Reason.INVALID, problems, now=now)
            return Settlement(answer, cause=Reason.INVALID.value)
        case NothingOffered(error_code=code, call_facts=call_facts):
            return Settlement(
                Answer.failed(message, code, now=now), cause="nothing-offered", call_facts=call_facts
            )
        case Unknown(call_facts=call_facts, last_sent_at=sent_at):
            return Settlement(
                Answer.uncertain(message, now=now),
                cause="unknown",
                call_facts=call_facts,
                last_sent_at=sent_at,
            )
        case Failure(call_facts=call_facts):
            return Settlement(
                Answer.failed(message, ErrorCode.OTHER, now=now),
                cause=error.cause,
                call_facts=call_facts,
                ours=isinstance(error, AtCapacity | NotSent | Misconfigured),
            )
        case _:
            failed = Answer.failed(message, ErrorCode.OTHER, now=now)
            return Settlement(failed, cause="bug", ours=True, bug=error)
