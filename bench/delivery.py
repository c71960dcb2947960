"""Delivery of failure reports: the broker, which records every attempt before and after its call, and a bare loop."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import asyncpg

from bench import job, waiting_reports
from bench.launch import BARE_DELIVERY, CONTESTANTS, Contestant, RunningContestant, Setting
from bench.runs import WARMUP
from bench.servers import Servers, Workspace
from bench.silent_server import silent_server
from bench.usage import CpuReading, Memory
from scripts.processes import StartFailed, say

POLL_S = 0.1
TIMEOUT_S = 300.0
TRICKLE_PAUSE_S = 0.5


@dataclass(frozen=True)
class Delivered:
    """The figures of one delivery run."""

    reports_per_second: float
    cpu_us_per_report: float
    peak_mib: float


def delivery(servers: Servers, rounds: int, count: int) -> dict[str, dict[str, float]]:
    """Run both in alternating order; the medians of each."""
    runs: dict[str, list[Delivered]] = {"jobnet-broker": [], "bare": []}
    for number in range(rounds):
        for name in list(runs)[:: 1 if number % 2 else -1]:
            runs[name].append(_broker(servers, count) if name == "jobnet-broker" else _bare(servers, count))
            say(f"delivery {name}: {runs[name][-1].reports_per_second:.0f}/s")
    return {name: _medians(own_runs) for name, own_runs in runs.items()}


def _medians(runs: list[Delivered]) -> dict[str, float]:
    names = asdict(runs[0])
    return {name: median(getattr(run, name) for run in runs) for name in names}


def _broker(servers: Servers, count: int) -> Delivered:
    with servers.workspace() as workspace:
        setting = Setting(before=lambda workspace: asyncio.run(waiting_reports.make(workspace.dsn, count)))
        return _measure(workspace, CONTESTANTS["jobnet-broker"], setting, count)


def _bare(servers: Servers, count: int) -> Delivered:
    with servers.workspace() as workspace:
        workspace.queue(job.REPORTS)
        workspace.fill_queue("reports", count)
        return _measure(workspace, BARE_DELIVERY, Setting(), count)


def _measure(workspace: Workspace, contestant: Contestant, setting: Setting, count: int) -> Delivered:
    """Measure from the end of the warm-up to the last report received. The stub counts the reports."""
    stub, questions = workspace.servers.stub, 0
    before = stub.requests()
    with contestant.running(workspace, setting) as running:
        pids = {"contestant": running.popen.pid}
        first: tuple[float, CpuReading, int] | None = None
        with Memory(running.popen.pid).watched() as memory:
            deadline = time.monotonic() + TIMEOUT_S
            while True:
                questions += 1  # the stub counts these requests, too
                delivered = stub.requests() - before - questions
                if first is None and delivered >= count * WARMUP:
                    first = time.monotonic(), CpuReading.of(pids), delivered
                if delivered >= count or time.monotonic() > deadline:
                    break
                time.sleep(POLL_S)
            if first is None or delivered < count:
                raise StartFailed(
                    f"{contestant.name}: {delivered} of {count} reports were delivered, see {running.log}"
                )
            seconds, used = time.monotonic() - first[0], CpuReading.of(pids).since(first[1])["contestant"]
    done = max(1, delivered - first[2])
    return Delivered(done / max(seconds, POLL_S), 1e6 * used / done, memory.peak)


def dead_supplier(servers: Servers, rounds: int, seconds: float) -> dict[str, Any]:
    """p99 from due to delivered of reports to nineteen suppliers, while the twentieth works and while it is dead."""
    found: dict[str, list[float]] = {"all well": [], "one dead": []}
    with silent_server() as url:
        for _ in range(rounds):
            for name, dead in (("all well", None), ("one dead", url)):
                found[name].append(_p99(servers, replace(Setting(), dead_supplier=dead), seconds))
                say(f"delivery, {name}: p99 {found[name][-1]:.1f} ms")
    all_well, one_dead = (median(times) for times in found.values())
    return {"all_well_p99_ms": all_well, "one_dead_p99_ms": one_dead, "ratio": one_dead / all_well}


def _p99(servers: Servers, setting: Setting, seconds: float) -> float:
    with (
        servers.workspace() as workspace,
        CONTESTANTS["jobnet-broker"].running(workspace, setting) as running,
    ):
        return asyncio.run(_trickle(workspace, running, seconds))


P99_MS = """
SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM settled_at - created_at)) * 1000
FROM reports WHERE supplier <> $1 AND state = 'delivered'
"""
NOT_DELIVERED = "SELECT count(*) FROM reports WHERE supplier <> $1 AND state <> 'delivered'"


async def _trickle(workspace: Workspace, running: RunningContestant, seconds: float) -> float:
    dead_supplier_name = waiting_reports.supplier_of(job.SYSTEMS - 1)
    sealer, number = waiting_reports.field_sealer(), 0
    connection = await asyncpg.connect(workspace.dsn)
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            await waiting_reports.insert(connection, waiting_reports.rows(sealer, number, job.SYSTEMS))
            number += job.SYSTEMS
            await asyncio.sleep(TRICKLE_PAUSE_S)
        deadline = time.monotonic() + TIMEOUT_S
        while await connection.fetchval(NOT_DELIVERED, dead_supplier_name):
            if time.monotonic() > deadline:
                raise StartFailed(f"reports to the suppliers that work were not delivered, see {running.log}")
            await asyncio.sleep(POLL_S)
        return float(await connection.fetchval(P99_MS, dead_supplier_name))
    finally:
        await connection.close()
