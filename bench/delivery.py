"""Report delivery: ours, with every attempt written down before and after, against a bare loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import asyncpg

from bench import job, waiting_reports
from bench.launch import BARE_DELIVERY, CONTESTANTS, ROOT, Contestant, RunningContestant, Setting
from bench.runs import WARMUP
from bench.servers import Servers, Workspace
from bench.silent_server import silent_server
from bench.usage import CpuReading, Memory
from scripts.processes import StartFailed, say

LOOK_S = 0.1
GIVE_UP_S = 300.0
TRICKLE_PAUSE_S = 0.5


@dataclass(frozen=True)
class Delivered:
    """What delivering so many reports came to."""

    reports_per_second: float
    cpu_us_per_report: float
    peak_mib: float


def delivery(servers: Servers, rounds: int, count: int) -> dict[str, dict[str, float]]:
    """Both in turns; medians."""
    runs: dict[str, list[Delivered]] = {"jobnet-broker": [], "bare": []}
    for number in range(rounds):
        for name in list(runs)[:: 1 if number % 2 else -1]:
            runs[name].append(_ours(servers, count) if name == "jobnet-broker" else _bare(servers, count))
            say(f"delivery {name}: {runs[name][-1].reports_per_second:.0f}/s")
    return {name: _medians(its) for name, its in runs.items()}


def _medians(runs: list[Delivered]) -> dict[str, float]:
    names = asdict(runs[0])
    return {name: median(getattr(run, name) for run in runs) for name in names}


def _ours(servers: Servers, count: int) -> Delivered:
    with servers.workspace() as workspace:
        setting = Setting(before=lambda there: asyncio.run(waiting_reports.make(there.dsn, count)))
        return _watched(workspace, CONTESTANTS["jobnet-broker"], setting, count)


def _bare(servers: Servers, count: int) -> Delivered:
    with servers.workspace() as workspace:
        workspace.queue(job.REPORTS)
        words = [sys.executable, "-m", "bench.fill_queue", "reports", str(count)]
        subprocess.run(words, cwd=ROOT, env=workspace.environment(), check=True)
        return _watched(workspace, BARE_DELIVERY, Setting(), count)


def _watched(workspace: Workspace, contestant: Contestant, setting: Setting, count: int) -> Delivered:
    """From the first report that reached the supplier to the last one. The stub counts them."""
    stub, asked = workspace.servers.stub, 0
    begun = stub.requests()
    with contestant.running(workspace, setting) as running:
        pids = {"contestant": running.popen.pid}
        first: tuple[float, CpuReading, int] | None = None
        with Memory(running.popen.pid).watched() as memory:
            until = time.monotonic() + GIVE_UP_S
            while True:
                asked += 1
                got = stub.requests() - begun - asked
                if first is None and got >= count * WARMUP:
                    first = time.monotonic(), CpuReading.of(pids), got
                if got >= count or time.monotonic() > until:
                    break
                time.sleep(LOOK_S)
            if first is None or got < count:
                raise StartFailed(
                    f"{contestant.name}: {got} of {count} reports were delivered, see {running.log}"
                )
            seconds, used = time.monotonic() - first[0], CpuReading.of(pids).since(first[1])["contestant"]
    done = max(1, got - first[2])
    return Delivered(done / max(seconds, LOOK_S), 1e6 * used / done, memory.peak)


def dead_supplier(servers: Servers, rounds: int, seconds: float) -> dict[str, Any]:
    """A trickle of reports to twenty suppliers; p99 from due to delivered of nineteen, when the last one is dead."""
    found: dict[str, list[float]] = {"all well": [], "one dead": []}
    with silent_server() as url:
        for _ in range(rounds):
            for name, dead in (("all well", None), ("one dead", url)):
                found[name].append(_p99(servers, replace(Setting(), dead_supplier=dead), seconds))
                say(f"delivery, {name}: p99 {found[name][-1]:.1f} ms")
    well, ill = (median(its) for its in found.values())
    return {"all_well_p99_ms": well, "one_dead_p99_ms": ill, "ratio": ill / well}


def _p99(servers: Servers, setting: Setting, seconds: float) -> float:
    with (
        servers.workspace() as workspace,
        CONTESTANTS["jobnet-broker"].running(workspace, setting) as running,
    ):
        return asyncio.run(_trickle(workspace, running, seconds))


TIMES = """
SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM settled_at - created_at)) * 1000
FROM reports WHERE supplier <> $1 AND state = 'delivered'
"""
LEFT = "SELECT count(*) FROM reports WHERE supplier <> $1 AND state <> 'delivered'"


async def _trickle(workspace: Workspace, running: RunningContestant, seconds: float) -> float:
    last = waiting_reports.supplier_of(job.SYSTEMS - 1)
    safe, number = waiting_reports.safe(), 0
    connection = await asyncpg.connect(workspace.dsn)
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await waiting_reports.insert(connection, waiting_reports.rows(safe, number, job.SYSTEMS))
            number += job.SYSTEMS
            await asyncio.sleep(TRICKLE_PAUSE_S)
        until = time.monotonic() + GIVE_UP_S
        while await connection.fetchval(LEFT, last):
            if time.monotonic() > until:
                raise StartFailed(f"reports of the living suppliers were not delivered, see {running.log}")
            await asyncio.sleep(LOOK_S)
        return float(await connection.fetchval(TIMES, last))
    finally:
        await connection.close()
