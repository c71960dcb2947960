"""Writes docs/benchmarks.json, .md and .svg. They are not edited by hand.

Each command of the benchmark replaces its own part of the JSON. Text and plot are generated from the whole JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.launch import ROOT
from bench.plot import chart
from bench.versions import NOISY
from scripts import readme

DOCS = ROOT / "docs"
JSON, TEXT, PLOT = (DOCS / f"benchmarks.{end}" for end in ("json", "md", "svg"))

HOW = """\
Written by `make bench`; do not edit. Every contestant does the same job on the same private RabbitMQ (quorum queues,
persistent messages, publisher confirms) and the same nginx, which stands in for the booking systems: consume a booking
request; call times, reserve and create over HTTP; publish an answer and an outcome event with confirms; acknowledge the
request last.

- **jobnet-broker**: this broker as installed, with default settings: validation, claim and result in PostgreSQL,
  sealing, deadlines, circuit breakers, one log line per message.
- **bare**: a loop with aio-pika and aiohttp on uvloop. It does not validate, store or retry anything, and books twice
  after a crash.
- **faststream**, **dramatiq**, **celery**: the same job, written as their documentation describes; FastStream with
  aiohttp on uvloop, the other two with `requests` in eight threads. They do not store anything either.

Each contestant has a core of its own{shared}. A round runs all contestants one after the other, in alternating order.
Figures are medians over the rounds; ratios are medians of the ratios in each round. Full load keeps {window} requests
in flight. Response times (p50, p95, p99) are from request to answer, at half of the contestant's own full rate. CPU is
user and system time of the contestant's own processes; that of RabbitMQ, PostgreSQL and nginx is shown separately.
"""


def read_results() -> dict[str, Any]:
    """All results so far, from docs/benchmarks.json."""
    found: dict[str, Any] = json.loads(JSON.read_text()) if JSON.exists() else {}
    return found


def write_results(part: Mapping[str, Any]) -> None:
    """Replace this part of the results, and write all three documents."""
    found = read_results() | dict(part)
    DOCS.mkdir(exist_ok=True)
    JSON.write_text(json.dumps(_rounded(found), indent=2) + "\n")
    TEXT.write_text(text(_rounded(found)))
    if "contestants" in found:
        PLOT.write_text(plot(found["contestants"]))
    readme.renew()


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3) if abs(value) < 10 else round(value, 1)
    if isinstance(value, Mapping):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def plot(contestants: Mapping[str, Mapping[str, float]]) -> str:
    panels = (
        ("Bookings per second on one core", "/s", "messages_per_second"),
        ("CPU time of the contestant per booking", "µs", "cpu_us_per_message"),
        ("p99 from request to answer at half load", "ms", "p99_ms"),
    )
    return chart(
        [(title, unit, {n: row[key] for n, row in contestants.items()}) for title, unit, key in panels]
    )


def text(found: Mapping[str, Any]) -> str:
    """The text of docs/benchmarks.md."""
    parts = ["# Benchmarks\n", _how(found)]
    for key, make in SECTIONS.items():
        if key in found:
            parts.append(make(found[key]))
    return "\n".join(parts)


def _how(found: Mapping[str, Any]) -> str:
    machine, noise = found.get("machine", {}), found.get("busy_elsewhere", 0.0)
    cores = machine.get("cores", 1)
    shared = "; RabbitMQ, PostgreSQL, nginx and the load share the rest" if cores > 1 else ""
    lines = [HOW.format(shared=shared, window=found.get("window", 400))]
    lines.append(f"Machine: {cores} cores, {machine.get('memory_gib', '?')} GiB of memory.")
    if noise > NOISY:
        lines.append(
            f"**Noisy machine**: before the start, other processes used {noise:.0%} of it. Ratios and CPU time are"
            " more reliable than rates."
        )
    if found.get("quick"):
        lines.append("**A quick run** (`QUICK=1`): few messages and rounds; to try the tool, not to quote.")
    versions = dict(found.get("versions", {}))
    others = versions.pop("others", {})
    lines.append("\nVersions: " + ", ".join(f"{name} {v}" for name, v in versions.items()) + ".")
    lines.append(
        "Versions of the other contestants: " + ", ".join(f"{name} {v}" for name, v in others.items()) + ".\n"
    )
    return "\n".join(lines)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table. All columns but the first are numbers."""
    lines = [_row(head), _row(("---", *("---:" for _ in head[1:])))]
    return "\n".join([*lines, *map(_row, rows)]) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _contestants(rows: Mapping[str, Mapping[str, Any]]) -> str:
    head = ("", "bookings/s", "lowest to highest", "CPU µs", "p50 ms", "p95 ms", "p99 ms", "peak MiB")
    body = [
        (
            name,
            f"{row['messages_per_second']:.0f}",
            f"{row['spread'][0]:.0f} to {row['spread'][1]:.0f}",
            f"{row['cpu_us_per_message']:.0f}",
            *(f"{row[f'p{p}_ms']:.1f}" for p in (50, 95, 99)),
            f"{row['peak_mib']:.0f}",
        )
        for name, row in rows.items()
    ]
    servers = ("rabbitmq", "postgresql", "nginx")
    beside = [(n, *(f"{row[f'{s}_cpu_us_per_message']:.0f}" for s in servers)) for n, row in rows.items()]
    return (
        "## Bookings\n\n![the figures of the table](benchmarks.svg)\n\n"
        + table(head, body)
        + "\nCPU µs of the servers per booking:\n\n"
        + table(("", "RabbitMQ", "PostgreSQL", "nginx"), beside)
    )


def _ratios(rows: Mapping[str, Mapping[str, float]]) -> str:
    body = [(name, f"{row['rate']:.2f}", f"{row['cpu']:.2f}") for name, row in rows.items()]
    return "The broker in proportion to each other contestant in the same round:\n\n" + table(
        ("", "rate", "CPU per booking"), body
    )


def _delivery(rows: Mapping[str, Mapping[str, float]]) -> str:
    head = ("", "reports/s", "CPU µs", "peak MiB")
    keys = ("reports_per_second", "cpu_us_per_report", "peak_mib")
    body = [(name, *(f"{row[key]:.0f}" for key in keys)) for name, row in rows.items()]
    return (
        "## Delivery of failure reports\n\nTwenty suppliers. The broker takes reports from the ledger, claims them, records"
        " each attempt before and after its call, and publishes the outcome. The bare loop consumes, posts and"
        " acknowledges.\n\n" + table(head, body)
    )


SETTINGS = {
    "workers": (
        "Worker processes",
        "`run --workers`. Each has a core, which on a small machine the servers then do not have.",
    ),
    "prefetch": ("Prefetch", "`queues.bookings_prefetch`; twice as many requests are in flight."),
    "request_bytes": ("Bytes of a request", "Padded with an unknown field."),
    "ledger": (
        "Cost of the ledger",
        "Stubbed: claims and settles succeed and write nothing.",
    ),
}


def _curves(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    head = ("", "bookings/s", "CPU µs", "PostgreSQL CPU µs", "p50 ms at full load", "peak MiB")
    keys = (
        "messages_per_second",
        "cpu_us_per_message",
        "postgresql_cpu_us_per_message",
        "p50_ms",
        "peak_mib",
    )
    parts = ["## Curves of the broker\n"]
    for name, points in found.items():
        title, note = SETTINGS[name]
        body = [(point, *(f"{row[key]:.0f}" for key in keys)) for point, row in points.items()]
        parts.append(f"### {title}\n\n{note}\n\n{table(head, body)}")
    return "\n".join(parts)


def _dead(found: Mapping[str, Mapping[str, float]]) -> str:
    head = ("", "p99 ms, all well", "p99 ms, one dead", "ratio")
    keys = ("all_well_p99_ms", "one_dead_p99_ms")
    body = [(n, *(f"{row[key]:.1f}" for key in keys), f"{row['ratio']:.2f}") for n, row in found.items()]
    return (
        "## One dead of twenty\n\nThe dead system accepts connections and never answers. p99 is that of the other nineteen:"
        " for bookings from request to answer, for reports from creation to delivery.\n\n" + table(head, body)
    )


def _backlog(found: Mapping[str, Mapping[str, float]]) -> str:
    head = ("", "waiting", "done per second", "MiB at the start", "MiB at the end", "peak MiB")
    body = [
        (
            name.replace("_", " "),
            f"{row['waiting']:,.0f}",
            f"{row['done_per_second']:.0f}",
            *(f"{row[key]:.0f}" for key in ("first_mib", "last_mib", "peak_mib")),
        )
        for name, row in found.items()
    ]
    return (
        "## Backlogs\n\nThe broker's memory while it works on a backlog. Start and end are the means of the first and"
        " the last fifth of the samples.\n\n" + table(head, body)
    )


SECTIONS: dict[str, Callable[[Any], str]] = {
    "contestants": _contestants,
    "ratios": _ratios,
    "delivery": _delivery,
    "curves": _curves,
    "one_dead": _dead,
    "backlog": _backlog,
}
