"""What one knob does: worker processes, prefetch, size of the request, the ledger, one dead system of twenty."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Any

from bench import job
from bench.lab import Lab
from bench.rounds import Load, Run, loaded
from bench.silence import silent
from bench.teams import TEAMS, Setting
from scripts.processes import say

BROKER = TEAMS["jobnet-broker"]
PREFETCHES = (20, 50, 200, 800)
PADDINGS = (0, 4_096, 16_384, 49_152)
IN_FLIGHT_PART = 10
"""A system's cap of calls is a tenth of the prefetch (config/default.toml)."""


def curves(lab: Lab, rounds: int, count: int) -> dict[str, Any]:
    """Every curve but the dead system's."""
    base = Setting()
    settings: dict[str, dict[str, tuple[Setting, Load]]] = {
        "workers": {str(n): (replace(base, processes=n), Load(count)) for n in (1, 2)},
        "prefetch": {str(n): (_prefetching(n), Load(count, window=2 * n)) for n in PREFETCHES},
        "request_bytes": {str(len(job.request(0)[1]) + n): (base, Load(count, padding=n)) for n in PADDINGS},
        "ledger": {
            "PostgreSQL": (base, Load(count)),
            "stubbed": (replace(base, module="bench.without_ledger"), Load(count)),
        },
    }
    return {name: _curve(lab, name, points, rounds) for name, points in settings.items()}


def _prefetching(prefetch: int) -> Setting:
    """The verifications take no more places than a system has, which the settings insist on."""
    places = max(1, prefetch // IN_FLIGHT_PART)
    return Setting(prefetch=prefetch, toml={"verification": {"batch": min(20, 2 * places)}})


def _curve(
    lab: Lab, name: str, points: dict[str, tuple[Setting, Load]], rounds: int
) -> dict[str, dict[str, float]]:
    runs: dict[str, list[Run]] = {point: [] for point in points}
    for _ in range(rounds):
        for point, (setting, load) in points.items():
            with lab.place() as place, BROKER.at_work(place, setting) as running:
                runs[point].append(loaded(place, BROKER, running, load))
            say(f"{name} {point}: {runs[point][-1].rate:.0f}/s")
    return {point: _medians(its) for point, its in runs.items()}


def _medians(runs: list[Run]) -> dict[str, float]:
    return {
        "messages_per_second": median(run.rate for run in runs),
        "cpu_us_per_message": median(run.own_cpu_us for run in runs),
        "postgresql_cpu_us_per_message": median(run.cpu_us["postgresql"] for run in runs),
        "p50_ms": median(run.p50_ms for run in runs),
        "peak_mib": median(run.peak_mib for run in runs),
    }


def dead_system(lab: Lab, rounds: int, seconds: float, rate: float) -> dict[str, Any]:
    """p99 of the requests to nineteen booking systems, while the twentieth is well and while it is dead."""
    found: dict[str, list[Run]] = {"all well": [], "one dead": []}
    with silent() as url:
        for _ in range(rounds):
            for name, dead in (("all well", None), ("one dead", url)):
                load = Load(count=int(rate * seconds), rate=rate, apart=1)
                with lab.place() as place, BROKER.at_work(place, Setting(dead_system=dead)) as running:
                    found[name].append(loaded(place, BROKER, running, load, quiet=True))
                say(f"{name}: the nineteen's p99 {found[name][-1].p99_ms:.1f} ms")
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
