"""Memory with a backlog: it must not grow with a million waiting reports or a million expired requests."""

from __future__ import annotations

import asyncio
import time
from statistics import mean
from typing import Any

import asyncpg

from bench import job, waiting_reports
from bench.launch import CONTESTANTS, Setting
from bench.servers import Servers, Workspace
from bench.usage import Memory
from scripts.processes import StartFailed, say

BROKER = CONTESTANTS["jobnet-broker"]
REAL_REPORTS = 20_000
"""The first reports of a backlog can be delivered; the others are copies that cannot be opened."""
FILL_S = 900.0


def backlog(servers: Servers, count: int, seconds: float) -> dict[str, Any]:
    """Measure both backlogs, each for `seconds` while the broker works on it."""
    limits = {"queues": {"max_length": 2 * count, "dead_max_length": 2 * count}}
    reports = Setting(
        before=lambda workspace: asyncio.run(
            waiting_reports.make(workspace.dsn, min(count, REAL_REPORTS), count)
        )
    )
    expired = Setting(toml=limits, before=lambda workspace: _fill(workspace, count))
    return {
        "waiting_reports": _measure(servers, "waiting reports", reports, count, seconds, _delivered),
        "too_old_requests": _measure(servers, "expired requests", expired, count, seconds, _expired),
    }


def _fill(workspace: Workspace, count: int) -> None:
    workspace.fill_queue("requests", count)
    deadline = time.monotonic() + FILL_S
    while workspace.servers.rabbit.queue_depth(job.BOOKINGS, workspace.name) < count:
        if time.monotonic() > deadline:
            raise StartFailed("the queue was not filled")
        time.sleep(1)


def _measure(
    servers: Servers, what: str, setting: Setting, count: int, seconds: float, count_done: Any
) -> dict[str, float]:
    with servers.workspace() as workspace, BROKER.running(workspace, setting) as running:
        before, started = asyncio.run(count_done(workspace)), time.monotonic()
        with Memory(running.popen.pid).watched() as memory:
            time.sleep(seconds)
        after, elapsed = asyncio.run(count_done(workspace)), time.monotonic() - started
    samples = memory.samples
    fifth = max(1, len(samples) // 5)
    results = {
        "waiting": count,
        "seconds": seconds,
        "done_per_second": (after - before) / elapsed,
        "first_mib": mean(samples[:fifth]),
        "last_mib": mean(samples[-fifth:]),
        "peak_mib": memory.peak,
    }
    say(
        f"{what}: {results['done_per_second']:.0f}/s, {results['first_mib']:.0f} MiB, later {results['last_mib']:.0f} MiB"
    )
    return results


async def _delivered(workspace: Workspace) -> int:
    return await _count(workspace, "SELECT count(*) FROM reports WHERE state = 'delivered'")


async def _expired(workspace: Workspace) -> int:
    return await _count(workspace, "SELECT count(*) FROM requests WHERE status = 'expired'")


async def _count(workspace: Workspace, query: str) -> int:
    connection = await asyncpg.connect(workspace.dsn, command_timeout=120)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()
