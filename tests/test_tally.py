"""What is counted, under which keys; and that a stranger's word is never one of them."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from broker.telemetry.counters import COUNTS, Counters, Histogram, Labels


def met(counts: Mapping[Labels, int]) -> dict[Labels, int]:
    """What has happened at all."""
    return {key: number for key, number in counts.items() if number}


def test_a_type_that_nobody_knows_is_counted_as_other() -> None:
    tally = Counters()
    for type_ in ("query.offers.v1", "0101364001", None, "query.offers.v9"):
        tally.arrived(type_)
    assert met(tally.arrivals) == {("query.offers.v1",): 1, ("other",): 3}


def test_an_answer_is_counted_by_type_status_and_error_code() -> None:
    tally = Counters()
    tally.answered("booking.book.v1", "failed", 4, monotonic())
    tally.answered("booking.book.v1", "done", None, monotonic())
    tally.answered("nonsense", "refused", None, monotonic())
    assert met(tally.answers) == {
        ("booking.book.v1", "failed", "4"): 1,
        ("booking.book.v1", "done", ""): 1,
        ("other", "refused", ""): 1,
    }
    assert tally.carrying[("booking.book.v1",)].count == 2


def test_a_value_falls_under_its_bound() -> None:
    spread = Histogram((1, 10))
    for value in (0.5, 1, 5, 100):
        spread.add(value)
    assert spread.buckets == [2, 1, 1]
    assert (spread.count, spread.sum) == (4, 106.5)


def test_everything_that_grows_is_there_flat_and_as_a_copy() -> None:
    tally = Counters()
    tally.called("birk", "create", "DONE", 0.1)
    tally.attempted("fyrtaarn", "delivered", monotonic())
    before = tally.counted()
    tally.called("birk", "create", "DONE", 0.1)
    assert met(before) == {("calls", "birk", "create", "done"): 1, ("attempts", "fyrtaarn", "delivered"): 1}
    assert tally.counted()[("calls", "birk", "create", "done")] == 2
    assert {key[0] for key in before} <= set(COUNTS)
