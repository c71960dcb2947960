"""The third column of docs/architecture.md#outcomes; then retries, overrides, probes, crashes and bugs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import (
    AtCapacity,
    CallFacts,
    ContractBroken,
    Misconfigured,
    NotSent,
    RabbitAway,
    Refused,
    Rejected,
    Unavailable,
)
from broker.lanes.decision import DeadLetter, Decision, Delivered, Hold, Retry, RetryState
from broker.lanes.events import (
    DestinationAnswered,
    DestinationFailed,
    Event,
    ProbeLost,
    SetupWrong,
    WaitRequested,
)
from broker.lanes.retry_policy import JITTER, judge, judge_crash, x_request_id
from config.report_sections import ReportSettings
from schemas.codes import FAULT_REASONS, Fault, Reason

HOUR = 3600.0
DELAYS = (10, 60, 300, 1800, 7200, 21600, *[43200] * 5)


RULES = ReportSettings(retry_delays_seconds=DELAYS)


def call_facts(status: int | None = None, what: str = "", **more: Any) -> CallFacts:
    return CallFacts("nordlys", "fejlmelding", what or f"status {status}", status=status, **more)


def unavailable(status: int, retry_after: float | None = None) -> Unavailable:
    return Unavailable(call_facts(status), retry_after)


def refused(fault: Fault, status: int = 400) -> Refused:
    return Refused(FAULT_REASONS[fault], call_facts=call_facts(status, fault=fault))


def judged(
    error: Exception | None,
    tries: RetryState = RetryState(),  # noqa: B008 - frozen
    *,
    overrides: Mapping[str, str] | None = None,
    probe: bool = False,
    chance: float = 0.0,
) -> Decision:
    return judge(error, tries, RULES, overrides or {}, probe=probe, chance=lambda: chance)


TIMEOUT = Unavailable(call_facts(what="timeout", unanswered=True))
REFUSED_CONNECTION = Unavailable(call_facts(what="connect-refused", sent=False))
FAILED = DestinationFailed
# what happened: the error, the verdict on a first attempt, what the lane learns, whose fault it is
TABLE: dict[str, tuple[Exception | None, object, Event | None, str | None]] = {
    "as the contract says": (None, Delivered(), DestinationAnswered(), None),
    "already received": (
        refused(Fault.ALREADY_RECEIVED, 409),
        Delivered(duplicate=True),
        DestinationAnswered(),
        None,
    ),
    "a fault of the list": (
        refused(Fault.UNKNOWN_CITIZEN),
        DeadLetter("unknown-citizen"),
        DestinationAnswered(),
        "message",
    ),
    "404 with a fault": (
        refused(Fault.UNKNOWN_OFFER, 404),
        DeadLetter("unknown-offer"),
        DestinationAnswered(),
        "message",
    ),
    "another 4xx": (Rejected(call_facts(422)), DeadLetter("rejected"), DestinationAnswered(), "message"),
    "412 without a lost try": (
        Rejected(call_facts(412)),
        DeadLetter("rejected"),
        DestinationAnswered(),
        "message",
    ),
    "refused connection": (
        REFUSED_CONNECTION,
        Retry(10, True, "unavailable"),
        FAILED("connect-refused"),
        "moment",
    ),
    "no answer": (TIMEOUT, Retry(10, True, "unavailable"), FAILED("timeout"), "moment"),
    "408": (unavailable(408), Retry(10, True, "unavailable"), FAILED("status 408"), "moment"),
    "500": (unavailable(500), Retry(10, True, "unavailable"), FAILED("status 500"), "moment"),
    "503": (unavailable(503), Retry(10, True, "unavailable"), FAILED("status 503"), "moment"),
    "503 with Retry-After": (
        unavailable(503, 7.0),
        Retry(7, False, "unavailable"),
        WaitRequested(7, "status 503"),
        "moment",
    ),
    "429 with Retry-After": (
        unavailable(429, 90.0),
        Retry(90, False, "unavailable"),
        WaitRequested(90, "status 429"),
        "moment",
    ),
    "bare 429": (
        unavailable(429),
        Retry(10, False, "unavailable"),
        WaitRequested(None, "status 429"),
        "moment",
    ),
    "500 with Retry-After": (
        unavailable(500, 90.0),
        Retry(90, True, "unavailable"),
        WaitRequested(90, "status 500"),
        "moment",
    ),
    "500 with a short Retry-After": (
        unavailable(500, 2.0),
        Retry(10, True, "unavailable"),
        WaitRequested(2, "status 500"),
        "moment",
    ),
    "bare 404": (
        Misconfigured(call_facts(404)),
        Hold("misconfigured"),
        SetupWrong("status 404"),
        "setup",
    ),
    "refused certificate": (
        Misconfigured(call_facts(what="certificate", sent=False)),
        Hold("misconfigured"),
        SetupWrong("certificate"),
        "setup",
    ),
    "redirect": (
        ContractBroken(call_facts(302, "redirect")),
        Retry(10, True, "contract-broken"),
        FAILED("redirect"),
        "moment",
    ),
    "web page": (
        ContractBroken(call_facts(200, "html")),
        Retry(10, True, "contract-broken"),
        FAILED("html", otherwise=True),
        "moment",
    ),
    "another 2xx": (
        ContractBroken(call_facts(202)),
        Retry(10, True, "contract-broken"),
        FAILED("status 202", otherwise=True),
        "moment",
    ),
    "our cap": (
        AtCapacity(call_facts(what="waiting-list-full", sent=False)),
        Retry(10, False, "at-capacity"),
        None,
        "ours",
    ),
    "held back": (
        NotSent(call_facts(what="no-time-left", sent=False)),
        Retry(10, False, "not-sent"),
        None,
        "ours",
    ),
    "our bug": (KeyError("x"), Retry(10, False, "bug"), None, "ours"),
    "an error that no delivery raises": (RabbitAway(), Retry(10, False, "bug"), None, "ours"),
}


@pytest.mark.parametrize("happened", TABLE)
def test_what_happened_becomes_what_the_design_says(happened: str) -> None:
    error, verdict, event, cause_class = TABLE[happened]
    got = judged(error)
    assert (got.verdict, got.lane_event, got.cause_class) == (verdict, event, cause_class)
    assert got.tries.retries == (1 if isinstance(verdict, Retry) and verdict.counted else 0)


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.ALREADY_RECEIVED])
def test_every_fault_of_the_list_concerns_one_report_and_opens_the_lane(fault: Fault) -> None:
    got = judged(refused(fault), probe=True)
    assert (got.verdict, got.lane_event) == (DeadLetter(FAULT_REASONS[fault].value), DestinationAnswered())


def test_retries_follow_the_list_and_then_the_report_is_dead() -> None:
    tries, pauses = RetryState(), []
    while isinstance(verdict := (got := judged(unavailable(500), tries)).verdict, Retry):
        pauses.append(verdict.pause_s)
        tries = got.tries
    assert tuple(pauses) == DELAYS
    assert verdict == DeadLetter("exhausted")
    assert got.lane_event == FAILED("status 500")


def test_what_uses_nothing_up_can_go_on_for_ever() -> None:
    last = RetryState(retries=len(DELAYS))
    for error in (
        unavailable(429),
        unavailable(503, 5),
        Misconfigured(call_facts(404)),
        AtCapacity(call_facts(what="x")),
    ):
        got = judged(error, last)
        assert not isinstance(got.verdict, DeadLetter)
        assert got.tries.retries == last.retries


@pytest.mark.parametrize("status", [429, 500, 503])
def test_retry_after_is_obeyed_up_to_a_day(status: int) -> None:
    day = judged(unavailable(status, 24 * HOUR)).verdict
    longer = judged(unavailable(status, 48 * HOUR))
    assert isinstance(day, Retry)
    assert day.pause_s == 24 * HOUR
    assert longer.verdict == day
    assert longer.lane_event == WaitRequested(48 * HOUR, f"status {status}")  # the lane tells a person


@given(
    chance=st.floats(0, 1),
    retries=st.integers(0, len(DELAYS) - 1),
    wish=st.none() | st.floats(0, 1e6),
    status=st.sampled_from([429, 500, 503, 408]),
)
def test_jitter_goes_upwards_only(chance: float, retries: int, wish: float | None, status: int) -> None:
    got = judged(unavailable(status, wish), RetryState(retries=retries), chance=chance).verdict
    plain = judged(unavailable(status, wish), RetryState(retries=retries)).verdict
    assert isinstance(got, Retry)
    assert isinstance(plain, Retry)
    assert plain.pause_s <= got.pause_s <= plain.pause_s * (1 + JITTER)


OTHER_2XX = [
    ContractBroken(call_facts(200)),
    ContractBroken(call_facts(202)),
    ContractBroken(call_facts(200, "html")),
    ContractBroken(call_facts(200, "too-large")),
]
PERHAPS_TAKEN_IN = [
    *OTHER_2XX,
    TIMEOUT,
    ContractBroken(call_facts(what="not-http")),
    ContractBroken(call_facts(303, "redirect")),
]


@pytest.mark.parametrize("meaning", [None, "retry", "park"])
@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize("error", PERHAPS_TAKEN_IN)
def test_no_report_is_taken_in_more_often_than_the_list_is_long_and_once(
    error: Exception, probe: bool, meaning: str | None
) -> None:
    tries, sent = RetryState(), 0
    overrides = {str(status): meaning for status in (200, 202)} if meaning else {}
    while sent < 100:
        sent += 1
        got = judged(error, tries, probe=probe, overrides=overrides)
        if isinstance(got.verdict, DeadLetter):
            break
        tries = got.tries
    assert sent == len(DELAYS) + 1
    assert got.verdict == DeadLetter("answered-otherwise" if error in OTHER_2XX else "exhausted")


@pytest.mark.parametrize("error", OTHER_2XX)
def test_a_report_that_was_answered_otherwise_keeps_its_id_and_a_person_is_told_at_once(
    error: ContractBroken,
) -> None:
    got = judged(error)
    assert got.unanswered  # the same x-requestId again, so a 412 means that it was taken in
    assert got.lane_event == FAILED(error.call_facts.what, otherwise=True)


@pytest.mark.parametrize(
    "error", [REFUSED_CONNECTION, unavailable(500), unavailable(503), unavailable(503, 9), unavailable(408)]
)
def test_a_failed_probe_counts_for_nobody(error: Exception) -> None:
    used_up = RetryState(retries=len(DELAYS))
    got = judged(error, used_up, probe=True)
    assert isinstance(got.verdict, Retry)
    assert not got.verdict.counted
    assert got.verdict.pause_s == (9 if isinstance(error, Unavailable) and error.retry_after else 0)
    assert replace(got.tries, unanswered=False) == used_up


@pytest.mark.parametrize("error", [AtCapacity(call_facts(what="x", sent=False)), KeyError("x")])
def test_a_probe_that_we_lost_ourselves_says_so_to_the_lane(error: Exception) -> None:
    assert judged(error, probe=True).lane_event == ProbeLost()
    assert judged(error).lane_event is None


def test_the_lane_knows_which_failure_was_the_probes() -> None:
    assert judged(TIMEOUT, probe=True).lane_event == FAILED("timeout", probe=True)
    assert judged(Misconfigured(call_facts(401)), probe=True).lane_event == SetupWrong(
        "status 401", probe=True
    )


LOST = RetryState(unanswered=True)


@pytest.mark.parametrize(
    ("error", "before", "wanted"),
    [
        (TIMEOUT, RetryState(), True),
        (TIMEOUT, LOST, True),
        (REFUSED_CONNECTION, RetryState(), False),
        (REFUSED_CONNECTION, LOST, True),  # nothing was sent, so nothing has changed
        (AtCapacity(call_facts(what="x", sent=False)), LOST, True),
        (unavailable(500), LOST, False),
        (unavailable(429, 5), LOST, False),
        (ContractBroken(call_facts(200, "html")), LOST, True),
        (ContractBroken(call_facts(302, "redirect")), LOST, False),
        (Misconfigured(call_facts(404)), LOST, False),
        (KeyError("x"), LOST, False),
        (None, LOST, False),
    ],
)
def test_the_x_request_id_stays_only_after_a_try_that_nobody_answered(
    error: Exception | None, before: RetryState, wanted: bool
) -> None:
    for probe in (False, True):
        assert judged(error, before, probe=probe).unanswered is wanted


def test_a_suppliers_own_meaning_of_a_status_goes_before_the_table() -> None:
    rejected, fault = Rejected(call_facts(422)), refused(Fault.INVALID_MESSAGE, 422)
    for error in (rejected, fault):
        retry = judged(error, overrides={"422": "retry"})
        assert isinstance(retry.verdict, Retry)
        assert (retry.verdict.pause_s, retry.verdict.counted, retry.lane_event) == (
            10,
            True,
            DestinationAnswered(),
        )
        assert judged(error, overrides={"422": "delivered"}).verdict == Delivered()
    assert isinstance(judged(unavailable(500), overrides={"422": "retry"}).verdict, Retry)
    assert judged(unavailable(500), overrides={"500": "dead"}).verdict == DeadLetter("unavailable")
    assert judged(rejected, overrides={"422": "park"}).verdict == Hold("rejected")
    assert judged(ContractBroken(call_facts(202)), overrides={"202": "delivered"}).verdict == Delivered()


def test_a_retry_by_override_ends_when_the_list_is_used_up_even_as_a_probe() -> None:
    got = judged(
        Rejected(call_facts(422)), RetryState(retries=len(DELAYS)), overrides={"422": "retry"}, probe=True
    )
    assert (got.verdict, got.lane_event) == (DeadLetter("exhausted"), DestinationAnswered())


def test_an_override_keeps_the_suppliers_retry_after() -> None:
    got = judged(unavailable(503, 90), overrides={"503": "retry"})
    assert (got.verdict, got.lane_event) == (Retry(90, True, "unavailable"), WaitRequested(90, "status 503"))


@pytest.mark.parametrize(
    "error",
    [
        ContractBroken(call_facts(302, "redirect")),
        ContractBroken(call_facts(200, "html")),
        ContractBroken(call_facts(204, "body")),
        ContractBroken(call_facts(202, "too-large")),
        Misconfigured(call_facts(404)),
        unavailable(503),
    ],
)
def test_no_configuration_makes_a_redirect_a_web_page_or_an_outage_delivered(error: Exception) -> None:
    assert isinstance(error, ContractBroken | Misconfigured | Unavailable)
    overrides = {str(error.call_facts.status): "delivered"}
    assert judged(error, overrides=overrides).verdict == judged(error).verdict


def test_already_received_is_delivered_whatever_the_supplier_says_of_its_status() -> None:
    error = refused(Fault.ALREADY_RECEIVED, 409)
    assert judged(error, overrides={"409": "dead"}).verdict == Delivered(duplicate=True)


def test_a_refusal_of_our_own_without_a_call_is_a_dead_letter_too() -> None:
    assert judged(Refused(Reason.INVALID)).verdict == DeadLetter("invalid")


def test_a_bug_is_tried_a_few_times() -> None:
    first = judged(KeyError("x"))
    second = judged(KeyError("x"), first.tries)
    third = judged(KeyError("x"), second.tries)
    assert (first.verdict, second.verdict) == (Retry(10, False, "bug"), Retry(60, False, "bug"))
    assert (third.verdict, third.tries) == (DeadLetter("bug"), RetryState(bugs=3))


def test_three_crashes_are_enough() -> None:
    tries = RetryState()
    for _ in range(2):
        got = judge_crash(tries, RULES)
        assert (got.verdict, got.unanswered) == (Retry(0, False, "crash"), True)
        tries = got.tries
    assert judge_crash(tries, RULES, probe=True).verdict == DeadLetter("crash")
    assert judge_crash(tries, RULES, probe=True).lane_event == ProbeLost()


def test_an_x_request_id_is_short_enough_and_of_its_report_and_try() -> None:
    one, other = UUID(int=1), UUID(int=2)
    ids = {x_request_id(one, 1), x_request_id(one, 2), x_request_id(other, 1)}
    assert len(ids) == 3
    assert x_request_id(one, 1) in ids
    assert all(len(each) <= 46 for each in ids)
