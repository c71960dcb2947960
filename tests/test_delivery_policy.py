"""The third column of DESIGN 5 as a table, then retries, overrides, probes, crashes and bugs one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import (
    AtCapacity,
    ContractBroken,
    Misconfigured,
    NotSent,
    RabbitAway,
    Refused,
    Rejected,
    Seen,
    Unavailable,
)
from broker.lanes.lane import Answered, AskedToWait, DestinationFailed, Event, ProbeLost, SetupWrong
from broker.lanes.retry_policy import (
    JITTER,
    Dead,
    Delivered,
    Judgement,
    Kept,
    Later,
    Tries,
    judge,
    judge_crash,
    x_request_id,
)
from schemas.codes import FAULT_REASONS, Fault, Reason

HOUR = 3600.0
DELAYS = (10, 60, 300, 1800, 7200, 21600, *[43200] * 5)


@dataclass(frozen=True)
class Rules:
    retry_delays_seconds: tuple[float, ...] = DELAYS
    retry_after_most_seconds: float = 24 * HOUR
    bug_tries: int = 3
    crashes_most: int = 3


RULES = Rules()


def seen(status: int | None = None, what: str = "", **more: Any) -> Seen:
    return Seen("nordlys", "fejlmelding", what or f"status {status}", status=status, **more)


def unavailable(status: int, retry_after: float | None = None) -> Unavailable:
    return Unavailable(seen(status), retry_after)


def refused(fault: Fault, status: int = 400) -> Refused:
    return Refused(FAULT_REASONS[fault], seen=seen(status, fault=fault))


def judged(
    error: Exception | None,
    tries: Tries = Tries(),  # noqa: B008 - frozen
    *,
    overrides: Mapping[str, str] | None = None,
    probe: bool = False,
    chance: float = 0.0,
) -> Judgement:
    return judge(error, tries, RULES, overrides or {}, probe=probe, chance=lambda: chance)


TIMEOUT = Unavailable(seen(what="timeout", unanswered=True))
REFUSED_CONNECTION = Unavailable(seen(what="connect-refused", sent=False))
FAILED = DestinationFailed
# what happened: the error, the verdict on a first attempt, what the lane learns, whose fault it is
TABLE: dict[str, tuple[Exception | None, object, Event | None, str | None]] = {
    "as the contract says": (None, Delivered(), Answered(), None),
    "already received": (refused(Fault.ALREADY_RECEIVED, 409), Delivered(duplicate=True), Answered(), None),
    "a fault of the list": (refused(Fault.UNKNOWN_CITIZEN), Dead("unknown-citizen"), Answered(), "message"),
    "404 with a fault": (
        refused(Fault.UNKNOWN_OFFER, 404),
        Dead("unknown-offer"),
        Answered(),
        "message",
    ),
    "another 4xx": (Rejected(seen(422)), Dead("rejected"), Answered(), "message"),
    "412 without a lost try": (Rejected(seen(412)), Dead("rejected"), Answered(), "message"),
    "refused connection": (
        REFUSED_CONNECTION,
        Later(10, True, "unavailable"),
        FAILED("connect-refused"),
        "moment",
    ),
    "no answer": (TIMEOUT, Later(10, True, "unavailable"), FAILED("timeout"), "moment"),
    "408": (unavailable(408), Later(10, True, "unavailable"), FAILED("status 408"), "moment"),
    "500": (unavailable(500), Later(10, True, "unavailable"), FAILED("status 500"), "moment"),
    "503": (unavailable(503), Later(10, True, "unavailable"), FAILED("status 503"), "moment"),
    "503 with Retry-After": (
        unavailable(503, 7.0),
        Later(7, False, "unavailable"),
        AskedToWait(7, "status 503"),
        "moment",
    ),
    "429 with Retry-After": (
        unavailable(429, 90.0),
        Later(90, False, "unavailable"),
        AskedToWait(90, "status 429"),
        "moment",
    ),
    "bare 429": (
        unavailable(429),
        Later(10, False, "unavailable"),
        AskedToWait(None, "status 429"),
        "moment",
    ),
    "500 with Retry-After": (
        unavailable(500, 90.0),
        Later(90, True, "unavailable"),
        AskedToWait(90, "status 500"),
        "moment",
    ),
    "500 with a short Retry-After": (
        unavailable(500, 2.0),
        Later(10, True, "unavailable"),
        AskedToWait(2, "status 500"),
        "moment",
    ),
    "bare 404": (
        Misconfigured(seen(404)),
        Kept("misconfigured"),
        SetupWrong("status 404"),
        "setup",
    ),
    "refused certificate": (
        Misconfigured(seen(what="certificate", sent=False)),
        Kept("misconfigured"),
        SetupWrong("certificate"),
        "setup",
    ),
    "redirect": (
        ContractBroken(seen(302, "redirect")),
        Later(10, True, "contract-broken"),
        FAILED("redirect"),
        "moment",
    ),
    "web page": (
        ContractBroken(seen(200, "html")),
        Later(10, True, "contract-broken"),
        FAILED("html"),
        "moment",
    ),
    "another 2xx": (
        ContractBroken(seen(202)),
        Later(10, True, "contract-broken"),
        FAILED("status 202"),
        "moment",
    ),
    "our cap": (
        AtCapacity(seen(what="waiting-list-full", sent=False)),
        Later(10, False, "at-capacity"),
        None,
        "ours",
    ),
    "held back": (NotSent(seen(what="no-time-left", sent=False)), Later(10, False, "not-sent"), None, "ours"),
    "our bug": (KeyError("x"), Later(10, False, "bug"), None, "ours"),
    "an error that no delivery raises": (RabbitAway(), Later(10, False, "bug"), None, "ours"),
}


@pytest.mark.parametrize("happened", TABLE)
def test_what_happened_becomes_what_the_design_says(happened: str) -> None:
    error, verdict, event, cause_class = TABLE[happened]
    got = judged(error)
    assert (got.verdict, got.lane_event, got.cause_class) == (verdict, event, cause_class)
    assert got.tries.retries == (1 if isinstance(verdict, Later) and verdict.counted else 0)


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.ALREADY_RECEIVED])
def test_every_fault_of_the_list_concerns_one_report_and_opens_the_lane(fault: Fault) -> None:
    got = judged(refused(fault), probe=True)
    assert (got.verdict, got.lane_event) == (Dead(FAULT_REASONS[fault].value), Answered())


def test_retries_follow_the_list_and_then_the_report_is_dead() -> None:
    tries, pauses = Tries(), []
    while isinstance(verdict := (got := judged(unavailable(500), tries)).verdict, Later):
        pauses.append(verdict.pause_s)
        tries = got.tries
    assert tuple(pauses) == DELAYS
    assert verdict == Dead("exhausted")
    assert got.lane_event == FAILED("status 500")


def test_what_uses_nothing_up_can_go_on_for_ever() -> None:
    last = Tries(retries=len(DELAYS))
    for error in (
        unavailable(429),
        unavailable(503, 5),
        Misconfigured(seen(404)),
        AtCapacity(seen(what="x")),
    ):
        got = judged(error, last)
        assert not isinstance(got.verdict, Dead)
        assert got.tries.retries == last.retries


@pytest.mark.parametrize("status", [429, 500, 503])
def test_retry_after_is_obeyed_up_to_a_day(status: int) -> None:
    day = judged(unavailable(status, 24 * HOUR)).verdict
    longer = judged(unavailable(status, 48 * HOUR))
    assert isinstance(day, Later)
    assert day.pause_s == 24 * HOUR
    assert longer.verdict == day
    assert longer.lane_event == AskedToWait(48 * HOUR, f"status {status}")  # the lane tells a person


@given(
    chance=st.floats(0, 1),
    retries=st.integers(0, len(DELAYS) - 1),
    wish=st.none() | st.floats(0, 1e6),
    status=st.sampled_from([429, 500, 503, 408]),
)
def test_jitter_goes_upwards_only(chance: float, retries: int, wish: float | None, status: int) -> None:
    got = judged(unavailable(status, wish), Tries(retries=retries), chance=chance).verdict
    plain = judged(unavailable(status, wish), Tries(retries=retries)).verdict
    assert isinstance(got, Later)
    assert isinstance(plain, Later)
    assert plain.pause_s <= got.pause_s <= plain.pause_s * (1 + JITTER)


@pytest.mark.parametrize(
    "error", [TIMEOUT, unavailable(500), unavailable(503, 9), ContractBroken(seen(200, "html"))]
)
def test_a_failed_probe_counts_for_nobody(error: Exception) -> None:
    used_up = Tries(retries=len(DELAYS))
    got = judged(error, used_up, probe=True)
    assert isinstance(got.verdict, Later)
    assert not got.verdict.counted
    assert got.verdict.pause_s == (9 if isinstance(error, Unavailable) and error.retry_after else 0)
    assert replace(got.tries, unanswered=False) == used_up


@pytest.mark.parametrize("error", [AtCapacity(seen(what="x", sent=False)), KeyError("x")])
def test_a_probe_that_we_lost_ourselves_says_so_to_the_lane(error: Exception) -> None:
    assert judged(error, probe=True).lane_event == ProbeLost()
    assert judged(error).lane_event is None


def test_the_lane_knows_which_failure_was_the_probes() -> None:
    assert judged(TIMEOUT, probe=True).lane_event == FAILED("timeout", probe=True)
    assert judged(Misconfigured(seen(401)), probe=True).lane_event == SetupWrong("status 401", probe=True)


LOST = Tries(unanswered=True)


@pytest.mark.parametrize(
    ("error", "before", "wanted"),
    [
        (TIMEOUT, Tries(), True),
        (TIMEOUT, LOST, True),
        (REFUSED_CONNECTION, Tries(), False),
        (REFUSED_CONNECTION, LOST, True),  # nothing was sent, so nothing has changed
        (AtCapacity(seen(what="x", sent=False)), LOST, True),
        (unavailable(500), LOST, False),
        (unavailable(429, 5), LOST, False),
        (ContractBroken(seen(200, "html")), LOST, False),
        (Misconfigured(seen(404)), LOST, False),
        (KeyError("x"), LOST, False),
        (None, LOST, False),
    ],
)
def test_the_x_request_id_stays_only_after_a_try_that_nobody_answered(
    error: Exception | None, before: Tries, wanted: bool
) -> None:
    for probe in (False, True):
        assert judged(error, before, probe=probe).unanswered is wanted


def test_a_suppliers_own_meaning_of_a_status_goes_before_the_table() -> None:
    rejected, fault = Rejected(seen(422)), refused(Fault.INVALID_MESSAGE, 422)
    for error in (rejected, fault):
        retry = judged(error, overrides={"422": "retry"})
        assert isinstance(retry.verdict, Later)
        assert (retry.verdict.pause_s, retry.verdict.counted, retry.lane_event) == (10, True, Answered())
        assert judged(error, overrides={"422": "delivered"}).verdict == Delivered()
    assert isinstance(judged(unavailable(500), overrides={"422": "retry"}).verdict, Later)
    assert judged(unavailable(500), overrides={"500": "dead"}).verdict == Dead("unavailable")
    assert judged(rejected, overrides={"422": "park"}).verdict == Kept("rejected")
    assert judged(ContractBroken(seen(202)), overrides={"202": "delivered"}).verdict == Delivered()


def test_a_retry_by_override_ends_when_the_list_is_used_up_even_as_a_probe() -> None:
    got = judged(Rejected(seen(422)), Tries(retries=len(DELAYS)), overrides={"422": "retry"}, probe=True)
    assert (got.verdict, got.lane_event) == (Dead("exhausted"), Answered())


def test_an_override_keeps_the_suppliers_retry_after() -> None:
    got = judged(unavailable(503, 90), overrides={"503": "retry"})
    assert (got.verdict, got.lane_event) == (Later(90, True, "unavailable"), AskedToWait(90, "status 503"))


@pytest.mark.parametrize(
    "error",
    [
        ContractBroken(seen(302, "redirect")),
        ContractBroken(seen(200, "html")),
        ContractBroken(seen(204, "body")),
        ContractBroken(seen(202, "too-large")),
        Misconfigured(seen(404)),
        unavailable(503),
    ],
)
def test_no_configuration_makes_a_redirect_a_web_page_or_an_outage_delivered(error: Exception) -> None:
    assert isinstance(error, ContractBroken | Misconfigured | Unavailable)
    overrides = {str(error.seen.status): "delivered"}
    assert judged(error, overrides=overrides).verdict == judged(error).verdict


def test_already_received_is_delivered_whatever_the_supplier_says_of_its_status() -> None:
    error = refused(Fault.ALREADY_RECEIVED, 409)
    assert judged(error, overrides={"409": "dead"}).verdict == Delivered(duplicate=True)


def test_a_refusal_of_our_own_without_a_call_is_a_dead_letter_too() -> None:
    assert judged(Refused(Reason.INVALID)).verdict == Dead("invalid")


def test_a_bug_is_tried_a_few_times() -> None:
    first = judged(KeyError("x"))
    second = judged(KeyError("x"), first.tries)
    third = judged(KeyError("x"), second.tries)
    assert (first.verdict, second.verdict) == (Later(10, False, "bug"), Later(60, False, "bug"))
    assert (third.verdict, third.tries) == (Dead("bug"), Tries(bugs=3))


def test_three_crashes_are_enough() -> None:
    tries = Tries()
    for _ in range(2):
        got = judge_crash(tries, RULES)
        assert (got.verdict, got.unanswered) == (Later(0, False, "crash"), True)
        tries = got.tries
    assert judge_crash(tries, RULES, probe=True).verdict == Dead("crash")
    assert judge_crash(tries, RULES, probe=True).lane_event == ProbeLost()


def test_an_x_request_id_is_short_enough_and_of_its_report_and_try() -> None:
    one, other = UUID(int=1), UUID(int=2)
    ids = {x_request_id(one, 1), x_request_id(one, 2), x_request_id(other, 1)}
    assert len(ids) == 3
    assert x_request_id(one, 1) in ids
    assert all(len(each) <= 46 for each in ids)
