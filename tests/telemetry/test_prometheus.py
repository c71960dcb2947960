"""The text format equals that of prometheus_client, and its parser reads it."""

from __future__ import annotations

from collections.abc import Iterable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from broker.telemetry.counters import Histogram
from broker.telemetry.prometheus import Writer

BOUNDS = (0.005, 0.25, 1, 10)
SEEN = (0.001, 0.005, 0.3, 0.3, 99.5)
EVIL = ('a "quoted" \\ name', "two\nlines", "æøå", "")


def read(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by name and labels, and every metric by kind and help text, without the creation times."""
    families: Iterable[Metric] = text_string_to_metric_families(text)
    found: dict[tuple[str, ...], float] = {}
    for family in families:
        if family.name.endswith("_created"):
            continue
        found[(family.name, family.type, family.documentation)] = 0
        for sample in family.samples:
            found[(sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items())))] = sample.value
    return found


def test_a_counter_a_gauge_and_a_histogram_read_the_same() -> None:
    registry = CollectorRegistry()
    calls = Counter("x_calls_total", "Calls", ["system", "why"], registry=registry)
    age = Gauge("x_age_seconds", "Age", registry=registry)
    took = prometheus_client.Histogram("x_took_seconds", "Took", ["type"], buckets=BOUNDS, registry=registry)
    for number, name in enumerate(EVIL):
        calls.labels(name, "b").inc(number)
    age.set(1e-05)
    spread = Histogram(BOUNDS)
    for value in SEEN:
        took.labels("a").observe(value)
        spread.add(value)
    ours = [
        *Writer("x_calls_total", "counter", "Calls", ["system", "why"]).lines(
            {(name, "b"): number for number, name in enumerate(EVIL)}
        ),
        *Writer("x_age_seconds", "gauge", "Age", []).lines({(): 1e-05}),
        *Writer("x_took_seconds", "histogram", "Took", ["type"]).lines({("a",): spread}),
    ]
    assert read("".join(ours)) == read(generate_latest(registry).decode())


def test_the_second_time_it_shows_the_new_numbers() -> None:
    writer, spread = Writer("x_took_seconds", "histogram", "Took", []), Histogram(BOUNDS)
    first = read("".join(writer.lines({(): spread})))
    spread.add(0.1)
    second = read("".join(writer.lines({(): spread})))
    assert (first[("x_took_seconds_count",)], second[("x_took_seconds_count",)]) == (0, 1)
    assert second[("x_took_seconds_bucket", "le=0.25")] == 1
