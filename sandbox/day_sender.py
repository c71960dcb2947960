"""Sends a sample day through a frontend and compares answers, last words and books with what must be.

Requests go out together, at most PLACES at a time for each booking system, so that the broker's own caps
decide nothing. Starts no server.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sandbox.desk_client import DeskClient
from sandbox.frontend import Frontend
from sandbox.samples import Line, Run, SetUp, final_mismatches, mismatches

PLACES = 12
ANSWER_S = 45.0  # the longest patience is 30 s; the rest is slack for a slow machine
FINAL_S = 120.0
WHEN_S = 60.0
POLL_S = 0.05
REPORT = "report.citizen.v1"
EFFECTS = {
    "booking.book.v1": "booked",
    "booking.immediate.v1": "booked",
    "booking.rebook.v1": "moved",
    "booking.accept.v1": "accepted",
    "booking.cancel.v1": "cancelled",
}


@dataclass
class LineResult:
    """How one line ended: `wrong` is empty when it met its expectation exactly."""

    line: Line
    status: str
    wrong: list[str] = field(default_factory=list)


class DaySender:
    """One sending of a day."""

    def __init__(self, lines: list[Line], run: Run, frontend: Frontend, desk: DeskClient) -> None:
        self._lines = lines
        self._run = run
        self._frontend = frontend
        self._desk = desk
        self._systems: dict[str, str] = {}
        self._places: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(PLACES))
        self._raw: dict[str, asyncio.Future[bytes]] = {}

    async def send(
        self, set_up: SetUp, systems: dict[str, str], ended: Callable[[LineResult], None]
    ) -> list[LineResult]:
        """Send all; `systems` names each jobcenter's booking system, `ended` hears of every line at once."""
        self._systems = systems
        self._raw = {line.id: asyncio.get_running_loop().create_future() for line in self._lines}
        await self._carry_out(set_up.controls)

        async def one(line: Line) -> LineResult:
            met = await self._one(line)
            ended(met)
            return met

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(line)) for line in self._lines]
            group.create_task(self._noon(set_up))
        return [task.result() for task in tasks]

    async def _noon(self, set_up: SetUp) -> None:
        if set_up.morning:
            await asyncio.wait([self._raw[name] for name in set_up.morning])
        await self._carry_out(set_up.noon)

    async def _carry_out(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            await self._desk.control(self._run.resolve(step))

    async def _one(self, line: Line) -> LineResult:
        try:
            return await self._carry(line)
        except TimeoutError:
            return LineResult(line, "no answer", ["no answer came in time"])
        except ValueError as error:
            return LineResult(line, "not sent", [str(error)])
        finally:
            self._raw[line.id].cancel()  # does nothing to a result

    async def _carry(self, line: Line) -> LineResult:
        if line.after:
            await asyncio.wait([self._raw[line.after]])
        if line.when:
            await self._until_called(line.when)
        await self._carry_out(line.before)
        async with self._place(line):
            sent = self._run.body(line)
            raw, answer = await self._frontend.ask(
                line.key, line.type, sent, mark=f"{self._run.run_id}/{line.id}", wait_s=ANSWER_S
            )
        self._run.answers[line.id] = answer
        self._raw[line.id].set_result(raw)
        await self._carry_out(line.afterwards)
        wrong = mismatches(line, json.loads(sent) if line.raw is None else {}, answer)
        return await self._last_word(line, raw, LineResult(line, str(answer.get("status")), wrong))

    def _place(self, line: Line) -> asyncio.Semaphore:
        """Lines that must come at a certain moment, and those that call no system, do not queue up with the rest."""
        system = self._systems.get(str(line.body.get("jobcenterkode")), "")
        apart = line.when or (line.report or {}).get("into") or line.type == REPORT
        return self._places[f"{system}, at its moment" if apart else system]

    async def _last_word(self, line: Line, raw: bytes, met: LineResult) -> LineResult:
        if line.is_copy:
            first = self._raw[line.expect["same_as"]]
            await asyncio.wait([first])
            if first.cancelled() or first.result() != raw:
                met.wrong.append("its answer is not the same as the first one's")
        if line.final and not met.wrong:
            event = await self._frontend.final(self._run.request_id(line), FINAL_S)
            met.status = f"{met.status}, then {event.get('outcome')}"
            met.wrong += final_mismatches(line.final, event)
        return met

    async def _until_called(self, when: dict[str, Any]) -> None:
        """Wait until the sandbox has seen that operation for the citizen of that line."""
        other = next(line for line in self._lines if line.id == when["of"])
        citizen = self._run.resolve(other.body["cpr"].replace("@citizen:", "@token:"))
        narrowed = {"operation": when["operation"], "citizen": citizen}
        async with asyncio.timeout(WHEN_S):
            while not await self._desk.get(when["system"], "calls", narrowed):  # noqa: ASYNC110 - another process
                await asyncio.sleep(POLL_S)


async def check_books(lines: list[Line], desk: DeskClient, systems: list[str]) -> list[str]:
    """What in the sandbox's books is not as it must be after this day, in sentences."""
    wrong: list[str] = []
    did: Counter[str] = Counter()
    for system in systems:
        told = await desk.get(system, "breaches")
        wrong += [f"{system}: breach of the contract: {breach}" for breach in told["breaches"]]
        books = await desk.get(system, "books")
        wrong += [f"{system}: {what}" for what in books["disagreements"]]
        did.update(entry["what"] for entry in books["entries"])
    must = Counter(EFFECTS[line.type] for line in lines if line.ends == "done" and line.type in EFFECTS)
    for what in dict.fromkeys(EFFECTS.values()):
        if did[what] != must[what]:
            wrong.append(f"meetings {what}: {did[what]} in the books, {must[what]} expected")
    return wrong
