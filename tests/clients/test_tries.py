"""The rules of x-requestId and 412, the retries and the final result, as a table of scripts. No sockets.

A script has the results of the tries in their order; `ids` are the expected x-requestIds, by number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import pytest

from broker.clients.breaker import Breaker
from broker.clients.bulkhead import Bulkhead
from broker.clients.calls import Call, Caller, CallKind, Reply
from broker.clients.classify import CallResult, HttpAnswer, NoAnswer
from broker.clients.tries import CallTries
from broker.errors import (
    AtCapacity,
    BrokerError,
    CallFacts,
    ContractBroken,
    Misconfigured,
    NotSent,
    Refused,
    Rejected,
    Unavailable,
    Unknown,
)
from schemas.external import Reservation
from tests.clients.support import FAULT, caller, limits

DONE = HttpAnswer(200, "application/json", b'{"reserveretTil": "2031-03-03T09:00:00+01:00"}')
TAKEN = HttpAnswer(409, "application/problem+json", f'{{"type": "{FAULT}tid-optaget"}}'.encode())
LOST = NoAnswer("timeout", connected=True)
RESET = NoAnswer("reset", connected=True)
REFUSED = NoAnswer("connect-refused", connected=False)
CERTIFICATE = NoAnswer("certificate", connected=False, setup=True)
BUSY, HTML = HttpAnswer(503), HttpAnswer(200, "text/html", b"<html>")


@dataclass
class Script:
    """Plays a script and keeps the x-requestIds. After its last result nothing more may be sent."""

    results: list[CallResult]
    ids: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    async def send(self, x_request_id: str, seconds: float) -> CallResult:
        assert len(self.ids) < len(self.results), "one try too many"
        self.ids.append(x_request_id)
        self.seconds.append(seconds)
        return self.results[len(self.ids) - 1]


def call(kind: CallKind) -> Call[Reservation]:
    return Call("step", kind, "POST", "/x", 200, Reservation)


async def play(
    kind: CallKind, script: Script, asker: Caller, *, bulkhead: Bulkhead | None = None, **changes: Any
) -> Reply[Reservation] | BrokerError:
    bulkhead = bulkhead or Bulkhead(5, 5, Breaker(1000, 60))
    tries = CallTries(
        "nordby", call(kind), asker, bulkhead=bulkhead, limits=limits(**changes), send=script.send
    )
    try:
        return await tries.run()
    except BrokerError as error:
        return error


def named(request_id: UUID, ids: Iterable[str]) -> list[str]:
    """The x-requestIds as the numbers of their tries, `?` for one that is not derived."""
    known = {str(uuid5(request_id, f"step:{key}")): str(key) for key in range(1, 9)}
    return [known.get(x_request_id, "?") for x_request_id in ids]


STATUS_412 = HttpAnswer(412)

# kind, results of the tries, their x-requestIds, type of the final result
SCRIPTS: dict[str, tuple[CallKind, list[CallResult], str, type]] = {
    "done at once": (CallKind.RESERVE, [DONE], "1", Reply),
    "same id only after no answer": (CallKind.RESERVE, [LOST, DONE], "11", Reply),
    "and after a reset": (CallKind.RESERVE, [RESET, LOST, DONE], "111", Reply),
    "a new id after a definite error": (CallKind.RESERVE, [BUSY, HttpAnswer(500), DONE], "123", Reply),
    "a new id after no connection": (CallKind.RESERVE, [REFUSED, DONE], "12", Reply),
    "a lost try stays open after one that did not connect": (
        CallKind.RESERVE,
        [LOST, REFUSED, STATUS_412],
        "111",
        Reply,
    ),
    "an answer closes a lost try": (CallKind.RESERVE, [LOST, BUSY, STATUS_412], "112", Rejected),
    "412 after no answer means received": (CallKind.RESERVE, [LOST, STATUS_412], "11", Reply),
    "412 otherwise is a 4xx": (CallKind.RESERVE, [STATUS_412], "1", Rejected),
    "a fault is final": (CallKind.RESERVE, [BUSY, TAKEN], "12", Refused),
    "setup is final": (CallKind.RESERVE, [HttpAnswer(401)], "1", Misconfigured),
    "a broken contract is final": (CallKind.RESERVE, [HTML], "1", ContractBroken),
    "reads get a fresh id each": (CallKind.READ, [LOST, BUSY, REFUSED, DONE], "????", Reply),
    "a commit that could not connect is tried again": (CallKind.COMMIT, [REFUSED, DONE], "12", Reply),
    "a commit answered 429 or 503 is tried again": (
        CallKind.COMMIT,
        [HttpAnswer(429), BUSY, DONE],
        "123",
        Reply,
    ),
    "a commit may be refused": (CallKind.COMMIT, [TAKEN], "1", Refused),
    "a commit may meet a refused certificate": (CallKind.COMMIT, [CERTIFICATE], "1", Misconfigured),
    "a lost commit is sent once more and stays unknown": (CallKind.COMMIT, [LOST, DONE], "11", Unknown),
    "also when the second is refused": (CallKind.COMMIT, [RESET, TAKEN], "11", Unknown),
    "also with a 412": (CallKind.COMMIT, [LOST, STATUS_412], "11", Unknown),
    "also with a 503": (CallKind.COMMIT, [LOST, BUSY], "11", Unknown),
    "also without an answer": (CallKind.COMMIT, [LOST, LOST], "11", Unknown),
    "also without a connection": (CallKind.COMMIT, [LOST, REFUSED], "11", Unknown),
    "lost after a definite error: still once more": (CallKind.COMMIT, [BUSY, LOST, DONE], "122", Unknown),
}
SCRIPTS |= {
    f"a commit answered {what} is unknown and not repeated": (CallKind.COMMIT, [result], "1", Unknown)
    for what, result in {
        **{str(s): HttpAnswer(s) for s in (202, 302, 400, 401, 403, 404, 405, 407, 408, 412, 500, 502, 504)},
        "with a web page": HTML,
        "too much": HttpAnswer(200, flaw="too-large"),
        "no HTTP": HttpAnswer(None, flaw="not-http"),
    }.items()
}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_tries_follow_their_script(name: str) -> None:
    kind, results, ids, wanted = SCRIPTS[name]
    script, asker = Script(results), caller()
    outcome = await play(kind, script, asker)
    assert type(outcome) is wanted
    assert "".join(named(asker.request_id, script.ids)) == ids
    assert len(script.ids) == len(results)
    assert all(len(x_request_id) <= 46 for x_request_id in script.ids)


async def test_a_received_reserve_has_no_body() -> None:
    outcome = await play(CallKind.RESERVE, Script([LOST, STATUS_412]), caller())
    assert outcome == Reply(None, 412)


async def test_reads_never_repeat_an_id() -> None:
    script = Script([LOST, LOST, DONE])
    await play(CallKind.READ, script, caller())
    assert len(set(script.ids)) == 3


async def test_unknown_keeps_the_first_result_and_the_time_of_the_last_send() -> None:
    began = datetime.now(UTC)
    outcome = await play(CallKind.COMMIT, Script([HttpAnswer(401)]), caller())
    assert isinstance(outcome, Unknown)
    assert (outcome.call_facts.what, outcome.call_facts.status, outcome.call_facts.system) == (
        "status 401",
        401,
        "nordby",
    )
    again = await play(CallKind.COMMIT, Script([LOST, DONE]), caller(), retry_first_ms=60, retry_max_ms=60)
    assert isinstance(again, Unknown)
    assert again.call_facts.what == "timeout"
    assert (again.last_sent_at - began).total_seconds() >= 0.06
    unmoved = await play(
        CallKind.COMMIT, Script([LOST, REFUSED]), caller(), retry_first_ms=60, retry_max_ms=60
    )
    assert isinstance(unmoved, Unknown)
    assert (datetime.now(UTC) - unmoved.last_sent_at).total_seconds() >= 0.06


async def test_may_commit_is_called_before_each_try_of_a_commit_with_its_whole_timeout() -> None:
    asked: list[float] = []
    script = Script([BUSY, LOST, DONE])
    await play(CallKind.COMMIT, script, caller(may_commit=asked.append), total_timeout_seconds=0.7)
    assert asked == [0.7] * 3


async def test_may_commit_is_not_called_for_reads_and_reserves() -> None:
    asked: list[float] = []
    for kind in (CallKind.READ, CallKind.RESERVE):
        await play(kind, Script([DONE]), caller(may_commit=asked.append))
    assert asked == []


def forbid_after(tries: int, script: Script) -> Any:
    def may_commit(_: float) -> None:
        if len(script.ids) >= tries:
            raise NotSent(CallFacts("nordby", "step", "heartbeat"))

    return may_commit


async def test_a_commit_that_may_not_be_sent_is_not_sent() -> None:
    script = Script([])
    assert type(await play(CallKind.COMMIT, script, caller(may_commit=forbid_after(0, script)))) is NotSent


async def test_an_unanswered_commit_that_may_not_be_sent_again_stays_unknown() -> None:
    script = Script([LOST])
    assert type(await play(CallKind.COMMIT, script, caller(may_commit=forbid_after(1, script)))) is Unknown


async def test_a_commit_that_may_not_be_retried_after_503_is_unavailable() -> None:
    script = Script([BUSY])
    assert (
        type(await play(CallKind.COMMIT, script, caller(may_commit=forbid_after(1, script)))) is Unavailable
    )


async def test_retries_end_with_the_callers_time() -> None:
    script, asker = Script([BUSY] * 1000), caller(0.15)
    assert type(await play(CallKind.READ, script, asker)) is Unavailable
    assert len(script.ids) > 2
    assert time.monotonic() <= asker.answer_by


async def test_a_commit_is_not_retried_when_its_whole_timeout_does_not_fit_any_more() -> None:
    outcome = await play(CallKind.COMMIT, Script([BUSY]), caller(1.0), total_timeout_seconds=1.0)
    assert type(outcome) is Unavailable


async def test_a_try_gets_no_more_than_the_time_that_is_left() -> None:
    script = Script([DONE])
    await play(CallKind.READ, script, caller(0.2), total_timeout_seconds=8.0)
    assert 0 < script.seconds[0] <= 0.2
    late = await play(CallKind.READ, Script([]), caller(-1))
    assert type(late) is NotSent


async def test_a_retry_after_that_fits_is_waited_for() -> None:
    script, began = Script([HttpAnswer(503, retry_after=0.1), DONE]), time.monotonic()
    assert type(await play(CallKind.READ, script, caller())) is Reply
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("seconds", [30.0, math.inf])
@pytest.mark.parametrize("kind", list(CallKind))
async def test_a_retry_after_that_does_not_fit_ends_the_call_at_once(kind: CallKind, seconds: float) -> None:
    script, began = Script([HttpAnswer(429, retry_after=seconds)]), time.monotonic()
    outcome = await play(kind, script, caller(5))
    assert isinstance(outcome, Unavailable)
    assert outcome.retry_after == seconds
    assert time.monotonic() - began < 4


async def test_other_calls_are_not_sent_during_a_retry_after() -> None:
    bulkhead = Bulkhead(5, 5, Breaker(1, 60))
    await play(CallKind.READ, Script([HttpAnswer(503, retry_after=30.0)]), caller(), bulkhead=bulkhead)
    outcome = await play(CallKind.COMMIT, Script([]), caller(), bulkhead=bulkhead)
    assert isinstance(outcome, Unavailable)
    assert outcome.call_facts.what == "retry-after"
    assert 25 < (outcome.retry_after or 0) <= 30


async def test_an_open_breaker_is_at_capacity_but_not_for_the_call_that_opened_it() -> None:
    bulkhead = Bulkhead(5, 5, Breaker(2, 60))
    assert type(await play(CallKind.READ, Script([BUSY, BUSY]), caller(), bulkhead=bulkhead)) is Unavailable
    outcome = await play(CallKind.READ, Script([]), caller(), bulkhead=bulkhead)
    assert isinstance(outcome, AtCapacity)
    assert outcome.call_facts.what == "breaker-open"


async def test_a_call_that_was_not_sent_does_not_count_for_the_breaker() -> None:
    bulkhead, script = Bulkhead(5, 5, Breaker(1, 60)), Script([])
    for _ in range(3):
        await play(CallKind.COMMIT, script, caller(may_commit=forbid_after(0, script)), bulkhead=bulkhead)
        await play(CallKind.READ, script, caller(-1), bulkhead=bulkhead)
    assert type(await play(CallKind.READ, Script([DONE]), caller(), bulkhead=bulkhead)) is Reply


async def test_a_try_that_was_cut_short_by_the_callers_time_does_not_count_for_the_breaker() -> None:
    bulkhead = Bulkhead(5, 5, Breaker(1, 60))
    await play(CallKind.READ, Script([LOST]), caller(0.04), bulkhead=bulkhead, total_timeout_seconds=8.0)
    assert type(await play(CallKind.READ, Script([DONE]), caller(), bulkhead=bulkhead)) is Reply
    await play(CallKind.READ, Script([LOST]), caller(5), bulkhead=bulkhead, total_timeout_seconds=8.0)
    assert type(await play(CallKind.READ, Script([]), caller(), bulkhead=bulkhead)) is AtCapacity


async def test_a_bug_during_a_commit_makes_it_unknown_and_is_kept_as_its_cause() -> None:
    class Buggy(Script):
        async def send(self, x_request_id: str, seconds: float) -> CallResult:
            await super().send(x_request_id, seconds)
            raise LookupError("a bug")

    outcome = await play(CallKind.COMMIT, Buggy([DONE]), caller())
    assert isinstance(outcome, Unknown)
    assert isinstance(outcome.__cause__, LookupError)
    with pytest.raises(LookupError):
        await play(CallKind.RESERVE, Buggy([DONE]), caller())
