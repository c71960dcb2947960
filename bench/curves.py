"""The effect of worker processes, prefetch, request size and the ledger, and of one dead system of twenty."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Any

from bench import job
from bench.launch import CONTESTANTS, Setting
from bench.runs import LoadOptions, Run, measure_run
from bench.servers import Servers
from bench.silent_server import silent_server
from scripts.processes import say

BROKER = CONTESTANTS["jobnet-broker"]
PREFETCHES = (20, 50, 200, 800)
PADDINGS = (0, 4_096, 16_384, 49_152)
IN_FLIGHT_PART = 10
"""A system's limit of concurrent calls is a tenth of the prefetch (config/default.toml)."""


def curves(servers: Servers, rounds: int, count: int) -> dict[str, Any]:
    """All curves except the dead system."""
    base = Setting()
    settings: dict[str, dict[str, tuple[Setting, LoadOptions]]] = {
        "workers": {str(n): (replace(base, processes=n), LoadOptions(count)) for n in (1, 2)},
        "prefetch": {str(n): (_prefetching(n), LoadOptions(count, window=2 * n)) for n in PREFETCHES},
        "request_bytes": {
            str(len(job.request(0)[1]) + n): (base, LoadOptions(count, padding=n)) for n in PADDINGS
        },
        "ledger": {
            "PostgreSQL": (base, LoadOptions(count)),
            "stubbed": (replace(base, module="bench.without_ledger"), LoadOptions(count)),
        },
    }
    return {name: _curve(servers, name, points, rounds) for name, points in settings.items()}


def _prefetching(prefetch: int) -> Setting:
    """A setting with this prefetch, and a verification batch that fits the limit of concurrent calls."""
    calls = max(1, prefetch // IN_FLIGHT_PART)
    return Setting(prefetch=prefetch, toml={"verification": {"batch": min(20, 2 * calls)}})


def _curve(
    servers: Servers, name: str, points: dict[str, tuple[Setting, LoadOptions]], rounds: int
) -> dict[str, dict[str, float]]:
    runs: dict[str, list[Run]] = {point: [] for point in points}
    for _ in range(rounds):
        for point, (setting, load) in points.items():
            with servers.workspace() as workspace, BROKER.running(workspace, setting) as running:
                runs[point].append(measure_run(workspace, BROKER, running, load))
            say(f"{name} {point}: {runs[point][-1].rate:.0f}/s")
    return {point: _medians(point_runs) for point, point_runs in runs.items()}


def _medians(runs: list[Run]) -> dict[str, float]:
    return {
        "messages_per_second": median(run.rate for run in runs),
        "cpu_us_per_message": median(run.own_cpu_us for run in runs),
        "postgresql_cpu_us_per_message": median(run.cpu_us["postgresql"] for run in runs),
        "p50_ms": median(run.p50_ms for run in runs),
        "peak_mib": median(run.peak_mib for run in runs),
    }


def dead_system(servers: Servers, rounds: int, seconds: float, rate: float) -> dict[str, Any]:
    """p99 of the requests to nineteen booking systems while the twentieth works and while it is dead."""
    found: dict[str, list[Run]] = {"all well": [], "one dead": []}
    with silent_server() as url:
        for _ in range(rounds):
            for name, dead in (("all well", None), ("one dead", url)):
                load = LoadOptions(count=int(rate * seconds), rate=rate, apart=1)
                with (
                    servers.workspace() as workspace,
                    BROKER.running(workspace, Setting(dead_system=dead)) as running,
                ):
                    found[name].append(measure_run(workspace, BROKER, running, load, quiet=True))
                say(f"{name}: p99 of the nineteen {found[name][-1].p99_ms:.1f} ms")
    p99 = {name: median(run.p99_ms for run in runs) for name, runs in found.items()}
    p50 = {name: median(run.p50_ms for run in runs) for name, runs in found.items()}
    return {
        "messages_per_second": rate,
        "all_well_p50_ms": p50["all well"],
        "one_dead_p50_ms": p50["one dead"],
        "all_well_p99_ms": p99["all well"],
        "one_dead_p99_ms": p99["one dead"],
        "ratio": p99["one dead"] / p99["all well"],
    }
