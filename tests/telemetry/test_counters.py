"""Counters: what is counted, under which keys, and that a key never comes from a message."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

from broker.telemetry.counters import COUNTS, Counters, Histogram, Labels


def nonzero(counts: Mapping[Labels, int]) -> dict[Labels, int]:
    """The counters that are not zero."""
    return {key: number for key, number in counts.items() if number}


def test_an_unknown_type_is_counted_as_other() -> None:
    counters = Counters()
    for type_ in ("query.offers.v1", "0101364001", None, "query.offers.v9"):
        counters.arrived(type_)
    assert nonzero(counters.arrivals) == {("query.offers.v1",): 1, ("other",): 3}


def test_an_answer_is_counted_by_type_status_and_error_code() -> None:
    counters = Counters()
    counters.answered("booking.book.v1", "failed", 4, monotonic())
    counters.answered("booking.book.v1", "done", None, monotonic())
    counters.answered("nonsense", "refused", None, monotonic())
    assert nonzero(counters.answers) == {
        ("booking.book.v1", "failed", "4"): 1,
        ("booking.book.v1", "done", ""): 1,
        ("other", "refused", ""): 1,
    }
    assert counters.carrying[("booking.book.v1",)].count == 2


def test_a_value_is_counted_in_its_bucket() -> None:
    histogram = Histogram((1, 10))
    for value in (0.5, 1, 5, 100):
        histogram.add(value)
    assert histogram.buckets == [2, 1, 1]
    assert (histogram.count, histogram.sum) == (4, 106.5)


def test_counted_is_a_flat_copy_of_all_counters() -> None:
    counters = Counters()
    counters.called("birk", "create", "DONE", 0.1)
    counters.attempted("fyrtaarn", "delivered", monotonic())
    before = counters.counted()
    counters.called("birk", "create", "DONE", 0.1)
    assert nonzero(before) == {
        ("calls", "birk", "create", "done"): 1,
        ("attempts", "fyrtaarn", "delivered"): 1,
    }
    assert counters.counted()[("calls", "birk", "create", "done")] == 2
    assert {key[0] for key in before} <= set(COUNTS)
