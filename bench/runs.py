"""One run of one contestant under a load, and rounds of such runs, one contestant after the other."""

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
"""The part of the answers of a run that is not counted."""
GUESS = 400.0
"""Messages a second: sizes the first load of each contestant."""


@dataclass(frozen=True)
class LoadOptions:
    """What the load generator is asked for; `rate` 0 keeps `window` requests on their way instead."""

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
    """What one load on one contestant came to. CPU is in µs per request."""

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
    """Put the load on; the warm-up counts for memory only. Raises StartFailed if not all were done."""
    pids = {
        "contestant": running.popen.pid,
        "rabbitmq": workspace.servers.rabbit.pid,
        "postgresql": workspace.servers.postgres.pid,
        "nginx": workspace.servers.stub.pid,
    }
    # A closed load is measured between two full windows, so that no work of before or after is counted.
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
        raise StartFailed(f"{contestant.name} did not carry the load, see {running.log}")
    figures: dict[str, Any] = json.loads(last)
    wrong = {status: n for status, n in figures["statuses"].items() if status != "done"}
    if wrong and not quiet:
        # A refusal costs less than a booking: a rate that counts them would flatter whoever refuses.
        raise StartFailed(f"{contestant.name}: not all were booked: {wrong}, see {running.log}")
    per = 1e6 / figures["answered"]
    return Run(
        rate=figures["rate"],
        p50_ms=figures["p50_ms"],
        p95_ms=figures["p95_ms"],
        p99_ms=figures["p99_ms"],
        cpu_us={name: seconds * per for name, seconds in used.items()},
        peak_mib=memory.peak,
        statuses=figures["statuses"],
    )


@dataclass(frozen=True)
class FullAndHalf:
    """One contestant's round: as fast as it can, then at half of that."""

    full: Run
    half: Run


def full_and_half(
    servers: Servers, contestant: Contestant, setting: Setting, seconds: float, guess: float
) -> FullAndHalf:
    """Each load lasts about so many seconds, if the contestant carries about `guess` a second."""
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
    """Every contestant once a round, in changing order; the first round's rate sizes the loads that follow."""
    found: dict[str, list[FullAndHalf]] = {name: [] for name in CONTESTANTS}
    for number in range(rounds):
        for name in list(CONTESTANTS)[:: 1 if number % 2 else -1]:
            guess = found[name][0].full.rate if found[name] else GUESS
            found[name].append(full_and_half(servers, CONTESTANTS[name], Setting(), seconds, guess))
    return found


def summary(rounds: list[FullAndHalf]) -> dict[str, Any]:
    """Medians over the rounds; `spread` is the lowest and the highest rate."""
    full, half = [each.full for each in rounds], [each.half for each in rounds]
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
    """The broker against each other one: the median of the ratios inside each round."""
    ours = rounds["jobnet-broker"]
    return {
        name: {
            "rate": median(a.full.rate / b.full.rate for a, b in zip(ours, its, strict=True)),
            "cpu": median(a.full.own_cpu_us / b.full.own_cpu_us for a, b in zip(ours, its, strict=True)),
        }
        for name, its in rounds.items()
        if name != "jobnet-broker"
    }
