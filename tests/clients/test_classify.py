"""The table of docs/architecture.md#outcomes, over every status, kind of call and kind of body."""

from __future__ import annotations

import json

import pytest

from broker.clients.breaker import CallHealth
from broker.clients.calls import Call, CallKind
from broker.clients.classify import CallClass, Classified, HttpAnswer, NoAnswer, classify
from schemas.codes import Fault
from schemas.external import Reservation
from tests.clients.support import FAULT

GOOD = b'{"reserveretTil": "2031-03-03T09:00:00+01:00"}'
SLOT_TAKEN = json.dumps({"type": FAULT + "tid-optaget", "detail": "0101364001"}).encode()

BODIES = {
    "good": HttpAnswer(0, "application/json", GOOD),
    "empty": HttpAnswer(0),
    "garbage": HttpAnswer(0, "application/json", b"{not json"),
    "html": HttpAnswer(0, "text/html", b"<html>log in</html>"),
    "unlabelled-html": HttpAnswer(0, "", b"  <!DOCTYPE html><p>"),
    "certificate-page": HttpAnswer(
        0, "text/html", b"<html><title>400 No required SSL certificate was sent</title></html>"
    ),
    "too-large": HttpAnswer(0, "application/json", flaw="too-large"),
    "bad-encoding": HttpAnswer(0, "application/json", flaw="encoding"),
    "fault": HttpAnswer(0, "application/problem+json", SLOT_TAKEN),
    "foreign-fault": HttpAnswer(0, "application/problem+json", b'{"type": "about:blank"}'),
    "list": HttpAnswer(0, "application/problem+json", b'["urn:borgerbooking:fejl:tid-optaget"]'),
    "odd-type": HttpAnswer(0, "application/problem+json", b'{"type": ["x"]}'),
}
FLAWED = {"html", "unlabelled-html", "certificate-page", "too-large", "bad-encoding"}


def call(kind: CallKind, expect: int = 200, absent: Fault | None = None) -> Call[Reservation]:
    return Call("step", kind, "POST", "/x", expect, Reservation, absent_fault=absent)


def judged(
    kind: CallKind, status: int, body: str, *, after_unanswered: bool = False
) -> Classified[Reservation]:
    template = BODIES[body]
    answer = HttpAnswer(status, template.content_type, template.body, template.flaw)
    return classify(call(kind), answer, after_unanswered=after_unanswered)


def wanted(status: int, body: str) -> CallClass:
    """The rows of docs/architecture.md#outcomes in their order, written independently of the code."""
    if status == 200:
        return CallClass.DONE if body == "good" else CallClass.BROKEN
    if 400 <= status <= 499 and body == "fault":
        return CallClass.REFUSED
    if status in (408, 429) or 500 <= status <= 599:
        return CallClass.UNAVAILABLE
    if status in (401, 403, 404, 405, 407) or (status == 400 and body == "certificate-page"):
        return CallClass.MISCONFIGURED
    if 400 <= status <= 499 and body not in FLAWED:
        return CallClass.REJECTED
    return CallClass.BROKEN


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("kind", list(CallKind))
def test_every_status_has_its_class(kind: CallKind, body: str) -> None:
    got = {status: judged(kind, status, body).call_class for status in range(100, 600)}
    assert got == {status: wanted(status, body) for status in range(100, 600)}


@pytest.mark.parametrize("body", BODIES)
def test_a_sent_commit_is_unknown_without_an_answer_of_the_contract(body: str) -> None:
    known = {
        status
        for status in range(100, 600)
        if not judged(CallKind.COMMIT, status, body).leaves_unknown(CallKind.COMMIT)
    }
    # 429 and 503 mean "not done"; a fault of the contract on any 4xx is an answer, and so is the good one.
    answered = (
        {429, 503}
        | ({200} if body == "good" else set())
        | (set(range(400, 500)) if body == "fault" else set())
    )
    assert known == answered


@pytest.mark.parametrize("kind", [CallKind.READ, CallKind.RESERVE])
def test_reads_and_reserves_are_never_unknown(kind: CallKind) -> None:
    assert not any(judged(kind, s, b).leaves_unknown(kind) for s in range(100, 600) for b in BODIES)
    assert not classify(call(kind), NoAnswer("timeout", connected=True)).leaves_unknown(kind)


def test_already_received_leaves_a_commit_unknown() -> None:
    body = json.dumps({"type": FAULT + "allerede-modtaget"}).encode()
    classified = classify(call(CallKind.COMMIT), HttpAnswer(412, "application/problem+json", body))
    assert classified.leaves_unknown(CallKind.COMMIT)


def test_a_412_means_received_only_after_an_unanswered_try_of_a_reserve() -> None:
    assert judged(CallKind.RESERVE, 412, "fault", after_unanswered=True).call_class is CallClass.RECEIVED
    assert judged(CallKind.RESERVE, 412, "empty", after_unanswered=True).call_class is CallClass.RECEIVED
    assert judged(CallKind.RESERVE, 412, "empty").call_class is CallClass.REJECTED
    assert judged(CallKind.READ, 412, "empty", after_unanswered=True).call_class is CallClass.REJECTED


@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_of_the_contract_is_read_and_no_other(fault: Fault) -> None:
    body = json.dumps({"type": fault.value}).encode()
    assert classify(call(CallKind.READ), HttpAnswer(409, "application/problem+json", body)).fault is fault
    almost = json.dumps({"type": fault.value + "x"}).encode()
    assert classify(call(CallKind.READ), HttpAnswer(409, "application/problem+json", almost)).fault is None
    assert classify(call(CallKind.READ), HttpAnswer(500, "application/problem+json", body)).fault is None


def test_only_a_404_with_the_named_fault_says_that_something_is_absent() -> None:
    find = call(CallKind.READ, absent=Fault.UNKNOWN_BOOKING)
    absent = json.dumps({"type": Fault.UNKNOWN_BOOKING}).encode()
    assert classify(find, HttpAnswer(404, "application/problem+json", absent)).call_class is CallClass.ABSENT
    assert classify(find, HttpAnswer(410, "application/problem+json", absent)).call_class is CallClass.REFUSED
    assert (
        classify(find, HttpAnswer(404, "application/problem+json", SLOT_TAKEN)).call_class
        is CallClass.REFUSED
    )
    assert classify(find, HttpAnswer(404)).call_class is CallClass.MISCONFIGURED


def test_a_204_has_no_body() -> None:
    nothing: Call[Reservation] = Call("cancel", CallKind.COMMIT, "DELETE", "/x", 204)
    assert classify(nothing, HttpAnswer(204)).call_class is CallClass.DONE
    assert classify(nothing, HttpAnswer(204, "text/html")).call_class is CallClass.DONE
    assert classify(nothing, HttpAnswer(204, body=b"x")).call_class is CallClass.BROKEN
    assert classify(nothing, HttpAnswer(204, flaw="body")).call_class is CallClass.BROKEN
    assert classify(nothing, HttpAnswer(200, "application/json", b"{}")).call_class is CallClass.BROKEN


def test_a_body_about_another_booking_breaks_the_contract() -> None:
    other = Call("x", CallKind.READ, "GET", "/x", 200, Reservation, agrees=lambda _: False)
    assert classify(other, HttpAnswer(200, "application/json", GOOD)).call_class is CallClass.BROKEN


@pytest.mark.parametrize(
    ("result", "call_class", "sent"),
    [
        (NoAnswer("connect-refused", connected=False), CallClass.UNAVAILABLE, False),
        (NoAnswer("dns", connected=False), CallClass.UNAVAILABLE, False),
        (NoAnswer("timeout", connected=True), CallClass.UNAVAILABLE, True),
        (NoAnswer("certificate", connected=False, setup=True), CallClass.MISCONFIGURED, False),
        (HttpAnswer(None, flaw="not-http"), CallClass.BROKEN, True),
        (HttpAnswer(600), CallClass.BROKEN, True),
        (HttpAnswer(999), CallClass.BROKEN, True),
    ],
)
def test_a_try_without_an_answer_is_classified_by_whether_it_was_sent(
    result: HttpAnswer | NoAnswer, call_class: CallClass, sent: bool
) -> None:
    classified = classify(call(CallKind.COMMIT), result)
    assert (classified.call_class, classified.sent) == (call_class, sent)
    assert classified.leaves_unknown(CallKind.COMMIT) == sent
    assert classified.unanswered == (isinstance(result, NoAnswer) and sent)


@pytest.mark.parametrize(
    ("result", "health"),
    [
        (HttpAnswer(200, "application/json", GOOD), CallHealth.ANSWERED),
        (HttpAnswer(409, "application/problem+json", SLOT_TAKEN), CallHealth.ANSWERED),
        (HttpAnswer(400), CallHealth.ANSWERED),
        (HttpAnswer(401), CallHealth.ANSWERED),
        (HttpAnswer(500), CallHealth.FAILED),
        (HttpAnswer(429), CallHealth.FAILED),
        (HttpAnswer(503, retry_after=3.0), CallHealth.NEITHER),
        (HttpAnswer(429, retry_after=3.0), CallHealth.NEITHER),
        (HttpAnswer(500, retry_after=3.0), CallHealth.FAILED),
        (HttpAnswer(302), CallHealth.FAILED),
        (HttpAnswer(200, "text/html", b"<html>"), CallHealth.FAILED),
        (NoAnswer("timeout", connected=True), CallHealth.FAILED),
        (NoAnswer("connect-refused", connected=False), CallHealth.FAILED),
        (NoAnswer("certificate", connected=False, setup=True), CallHealth.NEITHER),
    ],
)
def test_the_health_that_the_breaker_is_told(result: HttpAnswer | NoAnswer, health: CallHealth) -> None:
    assert classify(call(CallKind.READ), result).health is health


def test_no_text_from_the_other_side_is_kept() -> None:
    for status in (200, 302, 400, 404, 409, 500):
        assert "0101364001" not in repr(judged(CallKind.READ, status, "fault"))
        assert "0101364001" not in repr(HttpAnswer(status, body=SLOT_TAKEN))
