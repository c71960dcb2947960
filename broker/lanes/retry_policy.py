"""Decides what follows from one delivery attempt: delivered, retry, dead letter or hold (docs/architecture.md#outcomes).

Pure: no I/O, no clock; randomness is injected. It decides the report's next state and the event for its lane; the
ledger stores both in one commit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID, uuid5

from broker.errors import (
    AtCapacity,
    BrokerError,
    CallFacts,
    ContractBroken,
    Failure,
    Misconfigured,
    NotSent,
    Refused,
    Rejected,
    Unavailable,
)
from broker.lanes.decision import (
    Action,
    DeadLetter,
    Decision,
    Delivered,
    Hold,
    Retry,
    RetryState,
)
from broker.lanes.events import (
    DestinationAnswered,
    DestinationFailed,
    Event,
    ProbeLost,
    SetupWrong,
    WaitRequested,
)
from config.report_sections import ReportSettings
from schemas.codes import Reason

# Jitter goes upwards only, by at most this part of a delay from the list.
JITTER = 0.1
TOO_MANY_REQUESTS, NOT_NOW = 429, 503


def judge(
    error: Exception | None,
    tries: RetryState,
    rules: ReportSettings,
    overrides: Mapping[str, str],
    *,
    probe: bool = False,
    duplicate: bool = False,
    chance: Callable[[], float] = random.random,
) -> Decision:
    """Decide from the error that `Supplier.deliver` raised; None: delivered.

    `overrides`: meanings of a status for this supplier (`status_means`), for example {"422": "retry"}. `probe`: the
    attempt was the lane's probe; a failed probe uses up a retry only if the report may have been taken in. `chance`
    returns 0 to 1.
    """
    case = _Case(tries, rules, probe, chance)
    if error is None:
        return case.delivered(None, duplicate)
    call_facts = error.call_facts if isinstance(error, Refused | Failure) else None
    if isinstance(error, Refused) and error.reason is Reason.ALREADY_RECEIVED:
        return case.delivered(call_facts, True)
    meaning = _override(error, call_facts, overrides)
    return (
        _OVERRIDES[meaning](case, error, call_facts)
        if meaning and call_facts
        else _by_table(case, error, call_facts)
    )


def judge_crash(tries: RetryState, rules: ReportSettings, *, probe: bool = False) -> Decision:
    """Decide after the process died, or was frozen and overtaken, between the attempt's intent and its result."""
    crashed = replace(tries, crashes=tries.crashes + 1, unanswered=True)
    dead = crashed.crashes >= rules.crashes_most
    verdict: Action = DeadLetter("crash") if dead else Retry(0.0, counted=False, cause="crash")
    return Decision(verdict, crashed, ProbeLost() if probe else None, cause_class="ours")


def x_request_id(report_id: UUID, try_key: int) -> str:
    """The x-requestId of an attempt, 36 characters.

    `try_key` changes unless the last attempt was unanswered, or answered by a 2xx that is not the contract's.
    """
    return str(uuid5(report_id, f"fejlmelding:{try_key}"))


@dataclass(frozen=True, slots=True)
class _Case:
    """One attempt on its way through the table."""

    tries: RetryState
    rules: ReportSettings
    probe: bool
    chance: Callable[[], float]

    def delivered(self, call_facts: CallFacts | None, duplicate: bool) -> Decision:
        return Decision(
            Delivered(duplicate), replace(self.tries, unanswered=False), DestinationAnswered(), call_facts
        )

    def dead(
        self, cause: str, call_facts: CallFacts | None, cause_class: str, event: Event | None
    ) -> Decision:
        return Decision(DeadLetter(cause), self._after(call_facts), event, call_facts, cause_class)

    def hold(self, cause: str, call_facts: CallFacts) -> Decision:
        event = SetupWrong(call_facts.what, self.probe)
        tries = self._after(call_facts)
        if _may_be_taken_in(call_facts):  # only by a supplier's own meaning of a 2xx
            if tries.retries >= len(self.rules.retry_delays_seconds):
                return self.dead(_used_up(call_facts), call_facts, "setup", event)
            tries = replace(tries, retries=tries.retries + 1)
        return Decision(Hold(cause), tries, event, call_facts, "setup")

    def failed(self, cause: str, call_facts: CallFacts, retry_after: float | None = None) -> Decision:
        """The destination does not work. A failed probe uses up a retry only if the report may have been taken in."""
        event: Event = DestinationFailed(call_facts.what, self.probe, _answered_otherwise(call_facts))
        if retry_after is not None:
            event = WaitRequested(retry_after, call_facts.what)
        if self.probe and not _may_be_taken_in(call_facts):
            return self.later(self._capped(retry_after), cause, call_facts, event, "moment")
        return self.retry(cause, call_facts, retry_after, event)

    def retry(self, cause: str, call_facts: CallFacts, retry_after: float | None, event: Event) -> Decision:
        """Retry after the next delay of the list, or after Retry-After if that is longer; dead after the last delay."""
        used, delays = self.tries.retries, self.rules.retry_delays_seconds
        if used >= len(delays):
            return self.dead(_used_up(call_facts), call_facts, "moment", event)
        tries = replace(self._after(call_facts), retries=used + 1)
        pause = max(self._with_jitter(delays[used]), self._capped(retry_after))
        return Decision(Retry(pause, True, cause), tries, event, call_facts, "moment")

    def asked_to_wait(self, cause: str, call_facts: CallFacts, retry_after: float | None) -> Decision:
        """A 429, or a 503 with Retry-After: it uses up no retry."""
        pause = self._with_jitter(self._first()) if retry_after is None else self._capped(retry_after)
        return self.later(pause, cause, call_facts, WaitRequested(retry_after, call_facts.what), "moment")

    def later(
        self, pause: float, cause: str, call_facts: CallFacts | None, event: Event | None, cause_class: str
    ) -> Decision:
        return Decision(Retry(pause, False, cause), self._after(call_facts), event, call_facts, cause_class)

    def not_sent(self, cause: str, call_facts: CallFacts) -> Decision:
        """Our own limits stopped the call: nothing was sent, and the destination is neither proved nor disproved."""
        return self.later(self._with_jitter(self._first()), cause, call_facts, self.probe_lost(), "ours")

    def bug(self) -> Decision:
        """It is unknown whether it was answered. The retry has a new id: a lost report is worse than a repeated one."""
        tries = replace(self.tries, bugs=self.tries.bugs + 1, unanswered=False)
        delays = self.rules.retry_delays_seconds
        verdict: Action = DeadLetter("bug")
        if tries.bugs < self.rules.bug_tries:
            delay = delays[min(self.tries.bugs, len(delays) - 1)] if delays else 0.0
            verdict = Retry(self._with_jitter(delay), counted=False, cause="bug")
        return Decision(verdict, tries, self.probe_lost(), cause_class="ours")

    def probe_lost(self) -> Event | None:
        return ProbeLost() if self.probe else None

    def _after(self, call_facts: CallFacts | None) -> RetryState:
        """Keep the x-requestId only while an attempt under it may have been taken in and no later attempt said no."""
        if call_facts is None:
            return replace(self.tries, unanswered=False)
        if not call_facts.sent:
            return self.tries
        return replace(self.tries, unanswered=call_facts.unanswered or _answered_otherwise(call_facts))

    def _capped(self, retry_after: float | None) -> float:
        return min(retry_after or 0.0, self.rules.retry_after_most_seconds)

    def _first(self) -> float:
        return next(iter(self.rules.retry_delays_seconds), 0.0)

    def _with_jitter(self, delay: float) -> float:
        return delay + delay * JITTER * self.chance()


def _answered_otherwise(call_facts: CallFacts) -> bool:
    """Whether the answer was a 2xx. This is asked only of answers that are not the contract's."""
    return call_facts.status is not None and 200 <= call_facts.status < 300


def _may_be_taken_in(call_facts: CallFacts) -> bool:
    """Whether the report may have been taken in: it was sent, and no status from 400 on said no."""
    return call_facts.sent and (call_facts.status is None or call_facts.status < 400)


def _used_up(call_facts: CallFacts) -> str:
    """The cause of a report whose retries are used up."""
    return "answered-otherwise" if _answered_otherwise(call_facts) else "exhausted"


def _by_table(case: _Case, error: Exception, call_facts: CallFacts | None) -> Decision:
    """The table of docs/architecture.md#outcomes, column "report", rows from the top."""
    cause = _cause(error)
    match error:
        case Refused():
            return case.dead(cause, call_facts, "message", DestinationAnswered())
        case Unavailable(call_facts=met, retry_after=wish):
            orderly = met.status == TOO_MANY_REQUESTS or (met.status == NOT_NOW and wish is not None)
            if orderly:
                return case.asked_to_wait(cause, met, wish)
            return case.failed(cause, met, wish)
        case Misconfigured(call_facts=met):
            return case.hold(cause, met)
        case ContractBroken(call_facts=met):
            return case.failed(cause, met)
        case Rejected():
            return case.dead(cause, call_facts, "message", DestinationAnswered())
        case AtCapacity(call_facts=met) | NotSent(call_facts=met):
            return case.not_sent(cause, met)
        case _:
            return case.bug()


def _override(error: Exception, call_facts: CallFacts | None, overrides: Mapping[str, str]) -> str | None:
    """The meaning of this status for this supplier, if one is configured and applies here."""
    meaning = overrides.get(str(call_facts.status)) if call_facts and call_facts.status is not None else None
    if meaning == "delivered" and not _may_be_delivered(error, call_facts):
        return None
    return meaning


def _may_be_delivered(error: Exception, call_facts: CallFacts | None) -> bool:
    """Redirects, web pages, wrong and oversized bodies are never delivered, whatever the configuration says."""
    return (
        call_facts is not None
        and _plain(call_facts)
        and isinstance(error, ContractBroken | Refused | Rejected)
    )


def _plain(call_facts: CallFacts) -> bool:
    """Whether the status itself decided, not a flaw of the body or a redirect."""
    return call_facts.what == f"status {call_facts.status}"


def _cause(error: Exception) -> str:
    if isinstance(error, Refused):
        return error.reason.value
    return error.cause if isinstance(error, BrokerError) else "bug"


def _as_retry(case: _Case, error: Exception, call_facts: CallFacts) -> Decision:
    if isinstance(error, Refused | Rejected):  # the destination works: this is about the report, also a probe
        return case.retry(_cause(error), call_facts, None, DestinationAnswered())
    return case.failed(
        _cause(error), call_facts, error.retry_after if isinstance(error, Unavailable) else None
    )


def _as_dead(case: _Case, error: Exception, call_facts: CallFacts) -> Decision:
    event: Event = (
        DestinationAnswered() if _plain(call_facts) else DestinationFailed(call_facts.what, case.probe)
    )
    return case.dead(_cause(error), call_facts, "message", event)


def _as_delivered(case: _Case, _error: Exception, call_facts: CallFacts) -> Decision:
    return case.delivered(call_facts, False)


def _as_setup(case: _Case, error: Exception, call_facts: CallFacts) -> Decision:
    return case.hold(_cause(error), call_facts)


_OVERRIDES: Mapping[str, Callable[[_Case, Exception, CallFacts], Decision]] = {
    "retry": _as_retry,
    "dead": _as_dead,
    "delivered": _as_delivered,
    "park": _as_setup,
}
