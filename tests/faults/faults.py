"""How each fault of the matrix is done and undone: one small function for each kind, on the scene of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

from scripts.processes import StartFailed
from scripts.rabbitmq import MEMORY_LIMIT
from tests.faults.links import Link
from tests.faults.matrix import CLUSTER_KILL, KINDS, Fault
from tests.faults.scene import Scene, Window

CUT_EVERY_S = 0.4

Harm = Callable[[Scene, Fault], Awaitable[None]]


async def inflict(scene: Scene, fault: Fault) -> None:
    """Do it, wait, undo it; note when it was there."""
    window = Window(fault, datetime.now(UTC))
    scene.windows.append(window)
    try:
        await HARMS[fault.name](scene, fault)
    finally:
        window.ended = datetime.now(UTC)


# -- processes and servers ---------------------------------------------------------------------------------------


async def _worker_kill(scene: Scene, fault: Fault) -> None:
    scene.crew.kill(fault.which - 1, fault.seconds)
    await asyncio.sleep(fault.seconds)


async def _worker_stop(scene: Scene, fault: Fault) -> None:
    worker = scene.crew.freeze(fault.which - 1)
    await asyncio.sleep(fault.seconds)
    worker.thaw()


async def _rabbitmq_kill(scene: Scene, fault: Fault) -> None:
    async with scene.hands:
        await asyncio.to_thread(scene.grounds.rabbit.kill)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(scene.grounds.rabbit.start)


async def _cluster_node_kill(scene: Scene, fault: Fault) -> None:
    member = scene.grounds.cluster.members[fault.which - 1]
    async with scene.hands:  # of three, one at a time: two would take the majority
        await asyncio.to_thread(member.kill)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(member.start)


async def _rabbitmq_memory_alarm(scene: Scene, fault: Fault) -> None:
    def limit(to: str) -> str:
        return scene.grounds.rabbit.ctl("set_vm_memory_high_watermark", "absolute", to)

    async with scene.hands:  # a node that is down cannot be told
        await asyncio.to_thread(limit, "1MB")
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(limit, MEMORY_LIMIT)


async def _postgresql_kill(scene: Scene, fault: Fault) -> None:
    async with scene.hands:
        await asyncio.to_thread(scene.grounds.postgres.kill)
    await asyncio.sleep(fault.seconds)
    await postgres_up(scene)


async def _postgresql_disk_full(scene: Scene, fault: Fault) -> None:
    disk, postgres = scene.grounds.disk, scene.grounds.postgres
    await asyncio.to_thread(disk.fill, postgres)
    await asyncio.sleep(fault.seconds)
    await asyncio.to_thread(disk.free, postgres)
    await postgres_up(scene)  # if it gave up; else it is there


async def postgres_up(scene: Scene) -> None:
    """Started if it is not there; with a full disk it cannot, and whoever makes room starts it."""
    async with scene.hands:
        with suppress(StartFailed):
            await asyncio.to_thread(scene.grounds.postgres.start)


async def _clock_jump(scene: Scene, fault: Fault) -> None:
    scene.clock.write_text(f"{fault.amount:+g}\n")
    await asyncio.sleep(fault.seconds)
    scene.clock.write_text("+0\n")


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
    async def harm(scene: Scene, fault: Fault) -> None:
        name = f"{LINKS[of]}-{fault.which}" if of in LINKS else of
        await WAYS[way](scene.links[name], fault)

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
