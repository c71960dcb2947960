"""A million waiting: memory must be as flat with a million reports, or requests too old, as with none."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from statistics import mean
from typing import Any

import asyncpg

from bench import job, waiting_reports
from bench.launch import CONTESTANTS, ROOT, Setting
from bench.servers import Servers, Workspace
from bench.usage import Memory
from scripts.processes import StartFailed, say

BROKER = CONTESTANTS["jobnet-broker"]
REAL_REPORTS = 20_000
"""The reports of a backlog that stand first and can be delivered; the rest are copies."""
FILL_S = 900.0


def backlog(servers: Servers, count: int, seconds: float) -> dict[str, Any]:
    """Both backlogs, each watched for so many seconds while the broker works at it."""
    room = {"queues": {"max_length": 2 * count, "dead_max_length": 2 * count}}
    reports = Setting(
        before=lambda there: asyncio.run(waiting_reports.make(there.dsn, min(count, REAL_REPORTS), count))
    )
    old = Setting(toml=room, before=lambda there: _fill(there, count))
    return {
        "waiting_reports": _watched(servers, "waiting reports", reports, count, seconds, _delivered),
        "too_old_requests": _watched(servers, "requests too old", old, count, seconds, _expired),
    }


def _fill(workspace: Workspace, count: int) -> None:
    words = [sys.executable, "-m", "bench.fill_queue", "requests", str(count)]
    subprocess.run(words, cwd=ROOT, env=workspace.environment(), check=True)
    until = time.monotonic() + FILL_S
    while workspace.servers.rabbit.queue_depth(job.BOOKINGS, workspace.name) < count:
        if time.monotonic() > until:
            raise StartFailed("the queue was not filled")
        time.sleep(1)


def _watched(
    servers: Servers, what: str, setting: Setting, count: int, seconds: float, done: Any
) -> dict[str, float]:
    with servers.workspace() as workspace, BROKER.running(workspace, setting) as running:
        before, began = asyncio.run(done(workspace)), time.monotonic()
        with Memory(running.popen.pid).watched() as memory:
            time.sleep(seconds)
        after, took = asyncio.run(done(workspace)), time.monotonic() - began
    samples = memory.samples
    fifth = max(1, len(samples) // 5)
    found = {
        "waiting": count,
        "seconds": seconds,
        "done_per_second": (after - before) / took,
        "first_mib": mean(samples[:fifth]),
        "last_mib": mean(samples[-fifth:]),
        "peak_mib": memory.peak,
    }
    say(
        f"{what}: {found['done_per_second']:.0f}/s, {found['first_mib']:.0f} MiB, later {found['last_mib']:.0f} MiB"
    )
    return found


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
