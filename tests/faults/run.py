"""One seed from its plan to its audit: the load, the faults beside it, quiet, everybody's books."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.audit import Audit, audit
from tests.faults.books import collect
from tests.faults.faults import inflict
from tests.faults.load import Errand, Load
from tests.faults.matrix import Plan
from tests.faults.run_context import RunContext, quiet, run_context
from tests.faults.servers import Servers

EVERY_S = 0.05
"""Between two requests: a load that two workers on a small machine carry easily."""
QUIET_WITHIN_S = 150.0
SENT_WITHIN_S = 60.0
"""After the last fault: a frontend that RabbitMQ never gives a confirm knows that its request was not taken."""


@dataclass
class Result:
    """What became of one seed."""

    plan: Plan
    audit: Audit
    seconds: float
    notes: list[str]


async def run(plan: Plan, servers: Servers, folder: Path, *, within: float = QUIET_WITHIN_S) -> Result:
    """Raises StartFailed when a server does not come up; anything else is in the result."""
    began = time.monotonic()
    folder.mkdir(parents=True)  # noqa: ASYNC240  a moment
    async with run_context(plan, servers, folder) as context:
        load = Load(plan.seed, plan.requests, context.broker)
        await _play(context, load.errands)
        await _repair(context)
        stuck = await quiet(context, within)
        gaps = await _gaps(context)
        notes = list(context.workers.ended_by_itself)
        wrong = await context.workers.stop()
        await asyncio.sleep(1)  # the last events are on their way to the frontend
        books = await collect(context)
        books.stuck, books.gaps = stuck, gaps
        notes += wrong
        return Result(plan, audit(load.errands, books), time.monotonic() - began, notes)


async def _play(context: RunContext, errands: list[Errand]) -> None:
    """Send at a steady pace; each fault begins when its request's turn comes."""
    sends: list[asyncio.Task[None]] = []
    harms: list[asyncio.Task[None]] = []
    waiting = sorted(context.plan.faults, key=lambda fault: fault.at_request)
    for errand in errands:
        while waiting and waiting[0].at_request <= errand.number:
            harms.append(asyncio.create_task(inflict(context, waiting.pop(0))))
        sends.append(asyncio.create_task(_send(context, errand)))
        await asyncio.sleep(EVERY_S)
    await asyncio.gather(*harms)
    _, unsent = await asyncio.wait(sends, timeout=SENT_WITHIN_S)
    for task in unsent:
        task.cancel()


async def _send(context: RunContext, errand: Errand) -> None:
    for copy in range(errand.copies):
        if copy:
            await asyncio.sleep(0.5)
        await context.citizens.send(errand.type, errand.now())
        errand.taken = True


async def _repair(context: RunContext) -> None:
    """Whatever two faults at once left behind: all servers are there, all links are good."""
    await asyncio.to_thread(context.servers.postgres.start)
    for link in context.links.values():
        link.freeze(False)
        link.delay, link.answer_bytes = 0.0, None


async def _gaps(context: RunContext) -> list[str]:
    """What `jobnet-broker ledger conserve` names."""
    code, out, err = await context.broker.call("ledger", "conserve", "--json")
    if code == 0:
        return []
    try:
        return [f"{gap['gap']} {gap['id']}" for gap in json.loads(out)["named"]]
    except (ValueError, KeyError):
        return [f"ledger conserve: {err.strip()[-300:]}"]
