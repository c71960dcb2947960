"""What one attempt to deliver a report comes to: delivered, later, dead, or kept (DESIGN 5, third column; 6).

Pure judgement: no I/O, no clock; the only chance in it is handed in. It says what the report becomes and
what the lane learns; the ledger writes both down in one commit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID, uuid5

from broker.errors import (
    AtCapacity,
    BrokerError,
    ContractBroken,
    Failure,
    Misconfigured,
    NotSent,
    Refused,
    Rejected,
    Seen,
    Unavailable,
)
from broker.lanes.decision import Dead, Delivered, DeliveryRules, Judgement, Kept, Later, Tries, Verdict
from broker.lanes.lane import Answered, AskedToWait, DestinationFailed, Event, ProbeLost, SetupWrong
from schemas.codes import Reason

__all__ = [
    "Dead",
    "Delivered",
    "DeliveryRules",
    "Judgement",
    "Kept",
    "Later",
    "Tries",
    "Verdict",
    "judge",
    "judge_crash",
    "x_request_id",
]

# Jitter goes upwards only, by at most this part of a delay from the list.
JITTER = 0.1
TOO_MANY_REQUESTS, NOT_NOW = 429, 503


def judge(
    error: Exception | None,
    tries: Tries,
    rules: DeliveryRules,
    overrides: Mapping[str, str],
    *,
    probe: bool = False,
    duplicate: bool = False,
    chance: Callable[[], float] = random.random,
) -> Judgement:
    """Judges what `Supplier.deliver` raised, or None for delivered.

    `overrides` are the supplier's own meanings of a status: {"422": "retry"}. `probe`: the attempt was a
    lane's probe, and its failure counts for nobody. `chance` gives 0 to 1.
    """
    case = _Case(tries, rules, probe, chance)
    if error is None:
        return case.delivered(None, duplicate)
    seen = error.seen if isinstance(error, Refused | Failure) else None
    if isinstance(error, Refused) and error.reason is Reason.ALREADY_RECEIVED:
        return case.delivered(seen, True)
    meaning = _override(error, seen, overrides)
    return _OVERRIDES[meaning](case, error, seen) if meaning and seen else _by_table(case, error, seen)


def judge_crash(tries: Tries, rules: DeliveryRules, *, probe: bool = False) -> Judgement:
    """The process died (or was frozen and overtaken) between the attempt's intent and its result."""
    crashed = replace(tries, crashes=tries.crashes + 1, unanswered=True)
    dead = crashed.crashes >= rules.crashes_most
    verdict: Verdict = Dead("crash") if dead else Later(0.0, counted=False, cause="crash")
    return Judgement(verdict, crashed, ProbeLost() if probe else None, cause_class="ours")


def x_request_id(report_id: UUID, try_key: int) -> str:
    """36 characters from the report and its try; the key moves on unless the try before was unanswered."""
    return str(uuid5(report_id, f"fejlmelding:{try_key}"))


@dataclass(frozen=True, slots=True)
class _Case:
    """One attempt on its way through the table."""

    tries: Tries
    rules: DeliveryRules
    probe: bool
    chance: Callable[[], float]

    def delivered(self, seen: Seen | None, duplicate: bool) -> Judgement:
        return Judgement(Delivered(duplicate), replace(self.tries, unanswered=False), Answered(), seen)

    def dead(self, cause: str, seen: Seen | None, cause_class: str, event: Event | None) -> Judgement:
        return Judgement(Dead(cause), self._after(seen), event, seen, cause_class)

    def kept(self, cause: str, seen: Seen) -> Judgement:
        event = SetupWrong(seen.what, self.probe)
        return Judgement(Kept(cause), self._after(seen), event, seen, "setup")

    def failed(self, cause: str, seen: Seen, retry_after: float | None = None) -> Judgement:
        """The destination does not work. A failed probe counts for nobody."""
        event: Event = DestinationFailed(seen.what, self.probe)
        if retry_after is not None:
            event = AskedToWait(retry_after, seen.what)
        if self.probe:
            return self.later(self._wish(retry_after), cause, seen, event, "moment")
        return self.retry(cause, seen, retry_after, event)

    def retry(self, cause: str, seen: Seen, retry_after: float | None, event: Event) -> Judgement:
        """By the list, or by the supplier's own wish if that is later; the list used up means dead."""
        used, delays = self.tries.retries, self.rules.retry_delays_seconds
        if used >= len(delays):
            return self.dead("exhausted", seen, "moment", event)
        tries = replace(self._after(seen), retries=used + 1)
        pause = max(self._spread(delays[used]), self._wish(retry_after))
        return Judgement(Later(pause, True, cause), tries, event, seen, "moment")

    def asked_to_wait(self, cause: str, seen: Seen, retry_after: float | None) -> Judgement:
        """A 429, or a 503 with Retry-After: an orderly answer that uses up nothing."""
        wish = self._spread(self._first()) if retry_after is None else self._wish(retry_after)
        return self.later(wish, cause, seen, AskedToWait(retry_after, seen.what), "moment")

    def later(
        self, pause: float, cause: str, seen: Seen | None, event: Event | None, cause_class: str
    ) -> Judgement:
        return Judgement(Later(pause, False, cause), self._after(seen), event, seen, cause_class)

    def not_sent(self, cause: str, seen: Seen) -> Judgement:
        """Our own limits held it back: nothing was sent, and nobody learnt anything."""
        return self.later(self._spread(self._first()), cause, seen, self.lost(), "ours")

    def bug(self) -> Judgement:
        """Nobody knows whether it was answered; a lost report is worse than a repeated one: a new id."""
        tries = replace(self.tries, bugs=self.tries.bugs + 1, unanswered=False)
        delays = self.rules.retry_delays_seconds
        verdict: Verdict = Dead("bug")
        if tries.bugs < self.rules.bug_tries:
            delay = delays[min(self.tries.bugs, len(delays) - 1)] if delays else 0.0
            verdict = Later(self._spread(delay), counted=False, cause="bug")
        return Judgement(verdict, tries, self.lost(), cause_class="ours")

    def lost(self) -> Event | None:
        return ProbeLost() if self.probe else None

    def _after(self, seen: Seen | None) -> Tries:
        """The same x-requestId only while a try under it is unanswered and none since had an answer."""
        if seen is not None and not seen.sent:
            return self.tries
        return replace(self.tries, unanswered=seen is not None and seen.unanswered)

    def _wish(self, retry_after: float | None) -> float:
        return min(retry_after or 0.0, self.rules.retry_after_most_seconds)

    def _first(self) -> float:
        return next(iter(self.rules.retry_delays_seconds), 0.0)

    def _spread(self, delay: float) -> float:
        return delay + delay * JITTER * self.chance()


def _by_table(case: _Case, error: Exception, seen: Seen | None) -> Judgement:
    """The third column of DESIGN 5, from the top."""
    cause = _cause(error)
    match error:
        case Refused():
            return case.dead(cause, seen, "message", Answered())
        case Unavailable(seen=met, retry_after=wish):
            orderly = met.status == TOO_MANY_REQUESTS or (met.status == NOT_NOW and wish is not None)
            if orderly:
                return case.asked_to_wait(cause, met, wish)
            return case.failed(cause, met, wish)
        case Misconfigured(seen=met):
            return case.kept(cause, met)
        case ContractBroken(seen=met):
            return case.failed(cause, met)
        case Rejected():
            return case.dead(cause, seen, "message", Answered())
        case AtCapacity(seen=met) | NotSent(seen=met):
            return case.not_sent(cause, met)
        case _:
            return case.bug()


def _override(error: Exception, seen: Seen | None, overrides: Mapping[str, str]) -> str | None:
    """The supplier's own meaning of the status, if it has one that may hold here."""
    meaning = overrides.get(str(seen.status)) if seen and seen.status is not None else None
    if meaning == "delivered" and not _may_be_delivered(error, seen):
        return None
    return meaning


def _may_be_delivered(error: Exception, seen: Seen | None) -> bool:
    """Redirects, web pages, wrong and oversized bodies never are, whatever the configuration says."""
    return seen is not None and _plain(seen) and isinstance(error, ContractBroken | Refused | Rejected)


def _plain(seen: Seen) -> bool:
    """Whether the status itself was judged, and not a flaw of the body or a redirect."""
    return seen.what == f"status {seen.status}"


def _cause(error: Exception) -> str:
    if isinstance(error, Refused):
        return error.reason.value
    return error.cause if isinstance(error, BrokerError) else "bug"


def _as_retry(case: _Case, error: Exception, seen: Seen) -> Judgement:
    if isinstance(error, Refused | Rejected):  # the destination works: this is about the report, also a probe
        return case.retry(_cause(error), seen, None, Answered())
    return case.failed(_cause(error), seen, error.retry_after if isinstance(error, Unavailable) else None)


def _as_dead(case: _Case, error: Exception, seen: Seen) -> Judgement:
    event: Event = Answered() if _plain(seen) else DestinationFailed(seen.what, case.probe)
    return case.dead(_cause(error), seen, "message", event)


def _as_delivered(case: _Case, _error: Exception, seen: Seen) -> Judgement:
    return case.delivered(seen, False)


def _as_setup(case: _Case, error: Exception, seen: Seen) -> Judgement:
    return case.kept(_cause(error), seen)


_OVERRIDES: Mapping[str, Callable[[_Case, Exception, Seen], Judgement]] = {
    "retry": _as_retry,
    "dead": _as_dead,
    "delivered": _as_delivered,
    "park": _as_setup,
}
