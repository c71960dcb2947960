"""Decides what a result or an error becomes (docs/architecture.md#outcomes). Pure: no I/O, no clock.

Clients raise errors, this file decides, the pipeline acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.errors import (
    AtCapacity,
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

    `cause` is one of our own words, for the log. `call_facts` are those of the deciding call, if a system was called.
    `ours`: our own limits, set-up or a bug caused the failure, so no supplier is told of it.
    """

    answer: Answer
    cause: str | None = None
    call_facts: CallFacts | None = None
    ours: bool = False
    last_sent_at: datetime | None = None
    bug: BaseException | None = None


def done(message: Request, result: Result, now: datetime) -> Settlement:
    """The systems answered as the contract says."""
    return Settlement(Answer.done(message, result, now=now))


def refused(message: Request, reason: Reason, now: datetime) -> Settlement:
    """A business "no" of our own rules, decided before any call."""
    return settle(message, Refused(reason), now)


def expired(message: Request, now: datetime) -> Settlement:
    """The request came too late; nothing was called."""
    return Settlement(Answer.expired(message, now=now))


def not_carried_out(message: Request, now: datetime) -> Settlement:
    """Verification proved that an uncertain booking was not carried out."""
    return Settlement(Answer.failed(message, ErrorCode.OTHER, now=now), cause=NOT_BOOKED)


def settle(message: Request, error: Exception, now: datetime) -> Settlement:
    """Decide one error by the table. An exception that is not a BrokerError is a bug of ours."""
    match error:
        case Refused(reason=reason, fields=fields, call_facts=call_facts):
            answer = Answer.refused(message.request_id, message.TYPE, reason, fields, now=now)
            return Settlement(answer, cause=reason.value, call_facts=call_facts)
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
