"""Measures one run of a contestant under a load, and rounds of runs of all contestants."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from bench.launch import CONTESTANTS, ROOT, Contestant, RunningContestant, Setting
from bench.servers import Servers, Workspace
from bench.usage import CpuReading, Memory
from scripts.processes import StartFailed, say

WARMUP = 0.15
"""The fraction of a run that is not measured."""
FIRST_RATE = 400.0
"""Assumed messages per second, for the size of the first load of each contestant."""


@dataclass(frozen=True)
class LoadOptions:
    """Options of the load generator. With `rate` 0 it keeps `window` requests in flight."""

    count: int
    window: int = 400
    rate: float = 0.0
    padding: int = 0
    first: int = 0
    apart: int = 0

    def words(self) -> list[str]:
        return [f"--{name}={value}" for name, value in asdict(self).items()]


@dataclass(frozen=True)
class Run:
    """The figures of one load on one contestant. CPU is in µs per request."""

    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_us: dict[str, float]
    peak_mib: float
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def own_cpu_us(self) -> float:
        return self.cpu_us["contestant"]


def measure_run(
    workspace: Workspace,
    contestant: Contestant,
    running: RunningContestant,
    load: LoadOptions,
    *,
    quiet: bool = False,
) -> Run:
    """Run the load and measure it. Only memory is measured during the warm-up.

    Raises StartFailed if the load did not finish or, unless `quiet`, if a booking did not succeed.
    """
    pids = {
        "contestant": running.popen.pid,
        "rabbitmq": workspace.servers.rabbit.pid,
        "postgresql": workspace.servers.postgres.pid,
        "nginx": workspace.servers.stub.pid,
    }
    # A closed load is measured while its window is full, so that start and end do not count.
    tail = 0 if load.rate else load.window
    warmup = max(1, int(load.count * WARMUP), tail)
    load = replace(load, count=load.count + warmup + tail)
    command = [sys.executable, "-m", "bench.load_generator", f"--warmup={warmup}", f"--tail={tail}"]
    command += [f"--envelope={contestant.envelope}", f"--answers={contestant.answers}"]
    memory = Memory(running.popen.pid)
    with (
        memory.watched(),
        subprocess.Popen(
            [*command, *load.words()],
            cwd=ROOT,
            env=workspace.environment(),
            stdout=subprocess.PIPE,
            text=True,
        ) as loading,
    ):
        assert loading.stdout is not None  # noqa: S101  it is a PIPE
        loading.stdout.readline()
        before = CpuReading.of(pids)
        loading.stdout.readline()
        used = CpuReading.of(pids).since(before)
        last = loading.stdout.readline()
    if not last:
        raise StartFailed(f"{contestant.name} did not finish the load, see {running.log}")
    figures: dict[str, Any] = json.loads(last)
    not_done = {status: n for status, n in figures["statuses"].items() if status != "done"}
    if not_done and not quiet:
        # A refusal costs less than a booking and would make the rate too high.
        raise StartFailed(f"{contestant.name}: not all requests were booked: {not_done}, see {running.log}")
    us_per_request = 1e6 / figures["answered"]
    return Run(
        rate=figures["rate"],
        p50_ms=figures["p50_ms"],
        p95_ms=figures["p95_ms"],
        p99_ms=figures["p99_ms"],
        cpu_us={name: seconds * us_per_request for name, seconds in used.items()},
        peak_mib=memory.peak,
        statuses=figures["statuses"],
    )


@dataclass(frozen=True)
class FullAndHalf:
    """The runs of one contestant in one round: at full rate, then at half of that rate."""

    full: Run
    half: Run


def full_and_half(
    servers: Servers, contestant: Contestant, setting: Setting, seconds: float, guess: float
) -> FullAndHalf:
    """Measure both loads. Each takes about `seconds` if the full rate is about `guess` per second."""
    with servers.workspace() as workspace, contestant.running(workspace, setting) as running:
        full = measure_run(workspace, contestant, running, LoadOptions(count=max(200, int(guess * seconds))))
        rate = full.rate / 2
        half = measure_run(
            workspace,
            contestant,
            running,
            LoadOptions(count=max(100, int(rate * seconds)), rate=rate, first=1_000_000),
        )
    say(
        f"{contestant.name:14} {full.rate:6.0f}/s  {full.own_cpu_us:6.0f} µs  half load: p50 {half.p50_ms:.0f} ms,"
        f" p99 {half.p99_ms:.0f} ms  {full.peak_mib:.0f} MiB"
    )
    return FullAndHalf(full, half)


def contestants(servers: Servers, rounds: int, seconds: float) -> dict[str, list[FullAndHalf]]:
    """Run every contestant once per round, in alternating order. The first round sets the size of later loads."""
    found: dict[str, list[FullAndHalf]] = {name: [] for name in CONTESTANTS}
    for number in range(rounds):
        for name in list(CONTESTANTS)[:: 1 if number % 2 else -1]:
            guess = found[name][0].full.rate if found[name] else FIRST_RATE
            found[name].append(full_and_half(servers, CONTESTANTS[name], Setting(), seconds, guess))
    return found


def summary(rounds: list[FullAndHalf]) -> dict[str, Any]:
    """Medians over the rounds; `spread` has the lowest and the highest rate."""
    full, half = [pair.full for pair in rounds], [pair.half for pair in rounds]
    rates = [run.rate for run in full]
    return {
        "messages_per_second": median(rates),
        "spread": [min(rates), max(rates)],
        "cpu_us_per_message": median(run.own_cpu_us for run in full),
        **{
            f"{name}_cpu_us_per_message": median(run.cpu_us[name] for run in full)
            for name in ("rabbitmq", "postgresql", "nginx")
        },
        "p50_ms": median(run.p50_ms for run in half),
        "p95_ms": median(run.p95_ms for run in half),
        "p99_ms": median(run.p99_ms for run in half),
        "peak_mib": median(run.peak_mib for run in full),
    }


def ratios(rounds: Mapping[str, list[FullAndHalf]]) -> dict[str, dict[str, float]]:
    """The broker in proportion to each other contestant: the median of the ratios in each round."""
    broker = rounds["jobnet-broker"]
    return {
        name: {
            "rate": median(a.full.rate / b.full.rate for a, b in zip(broker, others, strict=True)),
            "cpu": median(a.full.own_cpu_us / b.full.own_cpu_us for a, b in zip(broker, others, strict=True)),
        }
        for name, others in rounds.items()
        if name != "jobnet-broker"
    }
