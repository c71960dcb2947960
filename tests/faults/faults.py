"""How each fault of the matrix is done and undone: one small function for each kind, on the context of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

from scripts.processes import StartFailed
from scripts.rabbitmq import MEMORY_LIMIT
from tests.faults.links import Link
from tests.faults.matrix import CLUSTER_KILL, KINDS, Fault
from tests.faults.run_context import RunContext, Window

CUT_EVERY_S = 0.4

Harm = Callable[[RunContext, Fault], Awaitable[None]]


async def inflict(context: RunContext, fault: Fault) -> None:
    """Do it, wait, undo it; note when it was there."""
    window = Window(fault, datetime.now(UTC))
    context.windows.append(window)
    try:
        await HARMS[fault.name](context, fault)
    finally:
        window.ended = datetime.now(UTC)


# -- processes and servers ---------------------------------------------------------------------------------------


async def _worker_kill(context: RunContext, fault: Fault) -> None:
    context.workers.kill(fault.which - 1, fault.seconds)
    await asyncio.sleep(fault.seconds)


async def _worker_stop(context: RunContext, fault: Fault) -> None:
    worker = context.workers.freeze(fault.which - 1)
    await asyncio.sleep(fault.seconds)
    worker.thaw()


async def _rabbitmq_kill(context: RunContext, fault: Fault) -> None:
    async with context.server_lock:
        await asyncio.to_thread(context.servers.rabbit.kill)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(context.servers.rabbit.start)


async def _cluster_node_kill(context: RunContext, fault: Fault) -> None:
    member = context.servers.cluster.members[fault.which - 1]
    async with context.server_lock:  # of three, one at a time: two would take the majority
        await asyncio.to_thread(member.kill)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(member.start)


async def _rabbitmq_memory_alarm(context: RunContext, fault: Fault) -> None:
    def limit(to: str) -> str:
        return context.servers.rabbit.ctl("set_vm_memory_high_watermark", "absolute", to)

    async with context.server_lock:  # a node that is down cannot be told
        await asyncio.to_thread(limit, "1MB")
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(limit, MEMORY_LIMIT)


async def _postgresql_kill(context: RunContext, fault: Fault) -> None:
    async with context.server_lock:
        await asyncio.to_thread(context.servers.postgres.kill)
    await asyncio.sleep(fault.seconds)
    await postgres_up(context)


async def _postgresql_disk_full(context: RunContext, fault: Fault) -> None:
    disk, postgres = context.servers.disk, context.servers.postgres
    await asyncio.to_thread(disk.fill, postgres)
    await asyncio.sleep(fault.seconds)
    await asyncio.to_thread(disk.free, postgres)
    await postgres_up(context)  # if it gave up; else it is there


async def postgres_up(context: RunContext) -> None:
    """Started if it is not there; with a full disk it cannot, and whoever makes room starts it."""
    async with context.server_lock:
        with suppress(StartFailed):
            await asyncio.to_thread(context.servers.postgres.start)


async def _clock_jump(context: RunContext, fault: Fault) -> None:
    context.clock.write_text(f"{fault.amount:+g}\n")
    await asyncio.sleep(fault.seconds)
    context.clock.write_text("+0\n")


# -- links -----------------------------------------------------------------------------------------------------


async def _reset(link: Link, fault: Fault) -> None:
    for _ in range(max(1, int(fault.seconds / CUT_EVERY_S))):
        link.cut()
        await asyncio.sleep(CUT_EVERY_S)


async def _slow(link: Link, fault: Fault) -> None:
    link.delay = fault.amount
    await asyncio.sleep(fault.seconds)
    link.delay = 0.0


async def _half_open(link: Link, fault: Fault) -> None:
    link.freeze()
    await asyncio.sleep(fault.seconds)
    link.freeze(False)


async def _cut_after_bytes(link: Link, fault: Fault) -> None:
    link.answer_bytes = int(fault.amount)
    link.cut()
    await asyncio.sleep(fault.seconds)
    link.answer_bytes = None


WAYS = {"reset": _reset, "slow": _slow, "half-open": _half_open, "cut-after-bytes": _cut_after_bytes}
LINKS = {"booking-system": "system", "supplier": "supplier"}


def _on_link(of: str, way: str) -> Harm:
    async def harm(context: RunContext, fault: Fault) -> None:
        name = f"{LINKS[of]}-{fault.which}" if of in LINKS else of
        await WAYS[way](context.links[name], fault)

    return harm


def _harm_of(name: str) -> Harm:
    for way in WAYS:
        if name.endswith(f"-{way}"):
            return _on_link(name.removesuffix(f"-{way}"), way)
    return _OTHERS[name]


_OTHERS: dict[str, Harm] = {
    "worker-kill": _worker_kill,
    "worker-stop": _worker_stop,
    "rabbitmq-kill": _rabbitmq_kill,
    "rabbitmq-memory-alarm": _rabbitmq_memory_alarm,
    "postgresql-kill": _postgresql_kill,
    "postgresql-disk-full": _postgresql_disk_full,
    "clock-jump": _clock_jump,
    CLUSTER_KILL: _cluster_node_kill,
}
HARMS: dict[str, Harm] = {kind.name: _harm_of(kind.name) for kind in KINDS}
