"""The circuit breaker as a table of scripts: the results of calls, and how it then admits a call."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clients.breaker import Admission, Breaker, CallHealth

OK, BAD, NIL = CallHealth.ANSWERED, CallHealth.FAILED, CallHealth.NEITHER

# Breaker(3 failures, 10 s): steps (time, result of one call), the time of the last call, how it is admitted.
SCRIPTS: dict[str, tuple[Sequence[tuple[float, CallHealth]], float, Admission | None]] = {
    "closed at first": ([], 0, Admission.NORMAL),
    "closed below the limit": ([(0, BAD), (0, BAD)], 0, Admission.NORMAL),
    "opens at the limit": ([(0, BAD), (0, BAD), (0, BAD)], 9.9, None),
    "a success between resets the count": ([(0, BAD), (0, BAD), (0, OK), (0, BAD)], 0, Admission.NORMAL),
    "a neutral result keeps the count": ([(0, BAD), (0, BAD), (0, NIL), (0, BAD)], 0, None),
    "admits a probe when its open time is over": ([(0, BAD), (0, BAD), (0, BAD)], 10, Admission.PROBE),
    "a good probe closes it": ([(0, BAD)] * 3 + [(10, OK)], 10, Admission.NORMAL),
    "a failed probe opens it for the same time again": ([(0, BAD)] * 3 + [(12, BAD)], 21.9, None),
    "after which it probes again": ([(0, BAD)] * 3 + [(12, BAD)], 22, Admission.PROBE),
    "after a neutral probe it admits another": (
        [(0, BAD)] * 3 + [(10, NIL)],
        10,
        Admission.PROBE,
    ),
    "a good probe resets the count": (
        [(0, BAD)] * 3 + [(10, OK), (11, BAD)],
        11,
        Admission.NORMAL,
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_breaker_follows_its_script(name: str) -> None:
    steps, at, wanted = SCRIPTS[name]
    breaker = Breaker(3, 10)
    for now, result in steps:
        admission = breaker.admit(now)
        assert admission is not None
        breaker.record(admission, result, now)
    assert breaker.refuses(at) == (wanted is None)
    assert breaker.admit(at) is wanted


def test_exactly_one_call_probes() -> None:
    breaker = Breaker(1, 10)
    breaker.record(Admission.NORMAL, BAD, 0)
    assert [breaker.admit(10) for _ in range(3)] == [Admission.PROBE, None, None]


def test_late_results_of_calls_from_before_it_opened_change_nothing() -> None:
    breaker = Breaker(1, 10)
    breaker.record(Admission.NORMAL, BAD, 0)
    breaker.record(Admission.NORMAL, OK, 1)
    breaker.record(Admission.NORMAL, BAD, 9)
    assert breaker.admit(5) is None
    assert breaker.admit(10) is Admission.PROBE


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from(CallHealth))))
def test_the_breaker_always_admits_a_call_again_in_the_end(steps: list[tuple[float, CallHealth]]) -> None:
    breaker, now = Breaker(2, 10), 0.0
    for pause, result in steps:
        now += pause
        admission = breaker.admit(now)
        if admission is not None:
            breaker.record(admission, result, now)
    assert breaker.admit(now + 10) is not None
