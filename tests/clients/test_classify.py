"""The table of DESIGN 5, over every status, kind of call and kind of body."""

from __future__ import annotations

import json

import pytest

from broker.clients.breaker import Result
from broker.clients.calls import Call, Kind
from broker.clients.classify import Answered, Judgement, Lost, Verdict, classify
from schemas.codes import Fault
from schemas.external import Reservation
from tests.clients.support import FAULT

GOOD = b'{"reserveretTil": "2031-03-03T09:00:00+01:00"}'
SLOT_TAKEN = json.dumps({"type": FAULT + "tid-optaget", "detail": "0101364001"}).encode()

BODIES = {
    "good": Answered(0, "application/json", GOOD),
    "empty": Answered(0),
    "garbage": Answered(0, "application/json", b"{not json"),
    "html": Answered(0, "text/html", b"<html>log in</html>"),
    "unlabelled-html": Answered(0, "", b"  <!DOCTYPE html><p>"),
    "certificate-page": Answered(
        0, "text/html", b"<html><title>400 No required SSL certificate was sent</title></html>"
    ),
    "too-large": Answered(0, "application/json", flaw="too-large"),
    "bad-encoding": Answered(0, "application/json", flaw="encoding"),
    "fault": Answered(0, "application/problem+json", SLOT_TAKEN),
    "foreign-fault": Answered(0, "application/problem+json", b'{"type": "about:blank"}'),
    "list": Answered(0, "application/problem+json", b'["urn:borgerbooking:fejl:tid-optaget"]'),
    "odd-type": Answered(0, "application/problem+json", b'{"type": ["x"]}'),
}
FLAWED = {"html", "unlabelled-html", "certificate-page", "too-large", "bad-encoding"}


def call(kind: Kind, expect: int = 200, absent: Fault | None = None) -> Call[Reservation]:
    return Call("step", kind, "POST", "/x", expect, Reservation, absent_fault=absent)


def judged(kind: Kind, status: int, body: str, *, after_unanswered: bool = False) -> Judgement[Reservation]:
    as_met = BODIES[body]
    met = Answered(status, as_met.content_type, as_met.body, as_met.flaw)
    return classify(call(kind), met, after_unanswered=after_unanswered)


def wanted(status: int, body: str) -> Verdict:
    """The rows of DESIGN 5 in their order, written down once more as plainly as can be."""
    if status == 200:
        return Verdict.DONE if body == "good" else Verdict.BROKEN
    if 400 <= status <= 499 and body == "fault":
        return Verdict.REFUSED
    if status in (408, 429) or 500 <= status <= 599:
        return Verdict.UNAVAILABLE
    if status in (401, 403, 404, 405, 407) or (status == 400 and body == "certificate-page"):
        return Verdict.MISCONFIGURED
    if 400 <= status <= 499 and body not in FLAWED:
        return Verdict.REJECTED
    return Verdict.BROKEN


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("kind", list(Kind))
def test_every_status_lands_in_its_row(kind: Kind, body: str) -> None:
    got = {status: judged(kind, status, body).verdict for status in range(100, 600)}
    assert got == {status: wanted(status, body) for status in range(100, 600)}


@pytest.mark.parametrize("body", BODIES)
def test_a_sent_commit_is_unknown_unless_answered_as_the_contract_says(body: str) -> None:
    known = {
        status
        for status in range(100, 600)
        if not judged(Kind.COMMIT, status, body).leaves_unknown(Kind.COMMIT)
    }
    # 429 and 503 say "not done"; a fault of the list on any 4xx is an answer; so is the expected one.
    said = (
        {429, 503}
        | ({200} if body == "good" else set())
        | (set(range(400, 500)) if body == "fault" else set())
    )
    assert known == said


@pytest.mark.parametrize("kind", [Kind.READ, Kind.RESERVE])
def test_nothing_else_is_ever_unknown(kind: Kind) -> None:
    assert not any(judged(kind, s, b).leaves_unknown(kind) for s in range(100, 600) for b in BODIES)
    assert not classify(call(kind), Lost("timeout", connected=True)).leaves_unknown(kind)


def test_already_received_says_that_something_arrived_and_not_what_became_of_it() -> None:
    body = json.dumps({"type": FAULT + "allerede-modtaget"}).encode()
    judgement = classify(call(Kind.COMMIT), Answered(412, "application/problem+json", body))
    assert judgement.leaves_unknown(Kind.COMMIT)


def test_a_412_means_received_only_after_an_unanswered_try_that_was_no_read() -> None:
    assert judged(Kind.RESERVE, 412, "fault", after_unanswered=True).verdict is Verdict.RECEIVED
    assert judged(Kind.RESERVE, 412, "empty", after_unanswered=True).verdict is Verdict.RECEIVED
    assert judged(Kind.RESERVE, 412, "empty").verdict is Verdict.REJECTED
    assert judged(Kind.READ, 412, "empty", after_unanswered=True).verdict is Verdict.REJECTED


@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_of_the_list_is_read_and_none_besides(fault: Fault) -> None:
    body = json.dumps({"type": fault.value}).encode()
    assert classify(call(Kind.READ), Answered(409, "application/problem+json", body)).fault is fault
    almost = json.dumps({"type": fault.value + "x"}).encode()
    assert classify(call(Kind.READ), Answered(409, "application/problem+json", almost)).fault is None
    assert classify(call(Kind.READ), Answered(500, "application/problem+json", body)).fault is None


def test_only_a_404_with_the_named_fault_says_that_something_is_absent() -> None:
    asked = call(Kind.READ, absent=Fault.UNKNOWN_BOOKING)
    absent = json.dumps({"type": Fault.UNKNOWN_BOOKING}).encode()
    assert classify(asked, Answered(404, "application/problem+json", absent)).verdict is Verdict.ABSENT
    assert classify(asked, Answered(410, "application/problem+json", absent)).verdict is Verdict.REFUSED
    assert classify(asked, Answered(404, "application/problem+json", SLOT_TAKEN)).verdict is Verdict.REFUSED
    assert classify(asked, Answered(404)).verdict is Verdict.MISCONFIGURED


def test_a_204_has_no_body() -> None:
    nothing: Call[Reservation] = Call("cancel", Kind.COMMIT, "DELETE", "/x", 204)
    assert classify(nothing, Answered(204)).verdict is Verdict.DONE
    assert classify(nothing, Answered(204, body=b"x")).verdict is Verdict.BROKEN
    assert classify(nothing, Answered(204, flaw="body")).verdict is Verdict.BROKEN
    assert classify(nothing, Answered(200, "application/json", b"{}")).verdict is Verdict.BROKEN


def test_a_body_that_is_not_about_what_was_asked_breaks_the_contract() -> None:
    other = Call("x", Kind.READ, "GET", "/x", 200, Reservation, agrees=lambda _: False)
    assert classify(other, Answered(200, "application/json", GOOD)).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("met", "verdict", "sent"),
    [
        (Lost("connect-refused", connected=False), Verdict.UNAVAILABLE, False),
        (Lost("dns", connected=False), Verdict.UNAVAILABLE, False),
        (Lost("timeout", connected=True), Verdict.UNAVAILABLE, True),
        (Lost("certificate", connected=False, setup=True), Verdict.MISCONFIGURED, False),
        (Answered(None, flaw="not-http"), Verdict.BROKEN, True),
        (Answered(600), Verdict.BROKEN, True),
        (Answered(999), Verdict.BROKEN, True),
    ],
)
def test_what_is_no_answer_is_told_apart_by_whether_it_left(
    met: Answered | Lost, verdict: Verdict, sent: bool
) -> None:
    judgement = classify(call(Kind.COMMIT), met)
    assert (judgement.verdict, judgement.sent) == (verdict, sent)
    assert judgement.leaves_unknown(Kind.COMMIT) == sent
    assert judgement.unanswered == (isinstance(met, Lost) and sent)


@pytest.mark.parametrize(
    ("met", "learnt"),
    [
        (Answered(200, "application/json", GOOD), Result.ANSWERED),
        (Answered(409, "application/problem+json", SLOT_TAKEN), Result.ANSWERED),
        (Answered(400), Result.ANSWERED),
        (Answered(401), Result.ANSWERED),
        (Answered(500), Result.FAILED),
        (Answered(429), Result.FAILED),
        (Answered(503, retry_after=3.0), Result.NEITHER),
        (Answered(429, retry_after=3.0), Result.NEITHER),
        (Answered(500, retry_after=3.0), Result.FAILED),
        (Answered(302), Result.FAILED),
        (Answered(200, "text/html", b"<html>"), Result.FAILED),
        (Lost("timeout", connected=True), Result.FAILED),
        (Lost("connect-refused", connected=False), Result.FAILED),
        (Lost("certificate", connected=False, setup=True), Result.NEITHER),
    ],
)
def test_what_the_breaker_learns(met: Answered | Lost, learnt: Result) -> None:
    assert classify(call(Kind.READ), met).for_breaker() is learnt


def test_nothing_that_the_other_side_wrote_is_kept() -> None:
    for status in (200, 302, 400, 404, 409, 500):
        assert "0101364001" not in repr(judged(Kind.READ, status, "fault"))
        assert "0101364001" not in repr(Answered(status, body=SLOT_TAKEN))
