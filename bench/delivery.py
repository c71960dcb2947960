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

from bench import job, reports_made
from bench.lab import Lab, Place
from bench.measure import Memory, Reading
from bench.rounds import WARMUP
from bench.silence import silent
from bench.teams import DELIVERING, ROOT, TEAMS, Running, Setting, Team
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


def delivery(lab: Lab, rounds: int, count: int) -> dict[str, dict[str, float]]:
    """Both in turns; medians."""
    runs: dict[str, list[Delivered]] = {"jobnet-broker": [], "bare": []}
    for number in range(rounds):
        for name in list(runs)[:: 1 if number % 2 else -1]:
            runs[name].append(_ours(lab, count) if name == "jobnet-broker" else _bare(lab, count))
            say(f"delivery {name}: {runs[name][-1].reports_per_second:.0f}/s")
    return {name: _medians(its) for name, its in runs.items()}


def _medians(runs: list[Delivered]) -> dict[str, float]:
    names = asdict(runs[0])
    return {name: median(getattr(run, name) for run in runs) for name in names}


def _ours(lab: Lab, count: int) -> Delivered:
    with lab.place() as place:
        setting = Setting(before=lambda there: asyncio.run(reports_made.make(there.dsn, count)))
        return _watched(place, TEAMS["jobnet-broker"], setting, count)


def _bare(lab: Lab, count: int) -> Delivered:
    with lab.place() as place:
        place.queue(job.REPORTS)
        words = [sys.executable, "-m", "bench.fill", "reports", str(count)]
        subprocess.run(words, cwd=ROOT, env=place.environment(), check=True)
        return _watched(place, DELIVERING, Setting(), count)


def _watched(place: Place, team: Team, setting: Setting, count: int) -> Delivered:
    """From the first report that reached the supplier to the last one. The stub counts them."""
    stub, asked = place.lab.stub, 0
    begun = stub.requests()
    with team.at_work(place, setting) as running:
        pids = {"contestant": running.popen.pid}
        first: tuple[float, Reading, int] | None = None
        with Memory(running.popen.pid).watched() as memory:
            until = time.monotonic() + GIVE_UP_S
            while True:
                asked += 1
                got = stub.requests() - begun - asked
                if first is None and got >= count * WARMUP:
                    first = time.monotonic(), Reading.of(pids), got
                if got >= count or time.monotonic() > until:
                    break
                time.sleep(LOOK_S)
            if first is None or got < count:
                raise StartFailed(f"{team.name}: {got} of {count} reports were delivered, see {running.log}")
            seconds, used = time.monotonic() - first[0], Reading.of(pids).since(first[1])["contestant"]
    done = max(1, got - first[2])
    return Delivered(done / max(seconds, LOOK_S), 1e6 * used / done, memory.peak)


def dead_supplier(lab: Lab, rounds: int, seconds: float) -> dict[str, Any]:
    """A trickle of reports to twenty suppliers; p99 from due to delivered of nineteen, when the last one is dead."""
    found: dict[str, list[float]] = {"all well": [], "one dead": []}
    with silent() as url:
        for _ in range(rounds):
            for name, dead in (("all well", None), ("one dead", url)):
                found[name].append(_p99(lab, replace(Setting(), dead_supplier=dead), seconds))
                say(f"delivery, {name}: p99 {found[name][-1]:.1f} ms")
    well, ill = (median(its) for its in found.values())
    return {"all_well_p99_ms": well, "one_dead_p99_ms": ill, "ratio": ill / well}


def _p99(lab: Lab, setting: Setting, seconds: float) -> float:
    with lab.place() as place, TEAMS["jobnet-broker"].at_work(place, setting) as running:
        return asyncio.run(_trickle(place, running, seconds))


TIMES = """
SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM settled_at - created_at)) * 1000
FROM reports WHERE supplier <> $1 AND state = 'delivered'
"""
LEFT = "SELECT count(*) FROM reports WHERE supplier <> $1 AND state <> 'delivered'"


async def _trickle(place: Place, running: Running, seconds: float) -> float:
    last = reports_made.supplier_of(job.SYSTEMS - 1)
    safe, number = reports_made.safe(), 0
    connection = await asyncpg.connect(place.dsn)
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await reports_made.insert(connection, reports_made.rows(safe, number, job.SYSTEMS))
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
