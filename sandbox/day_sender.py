"""Sends a sample day through a frontend; compares answers, final outcomes and the sandbox's books with the expected.

Requests go out concurrently, at most MAX_CONCURRENT for each booking system, so that the broker's own limits do not
change an outcome. Starts no server.
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

MAX_CONCURRENT = 12
# The longest deadline of a request is 30 s; the rest allows for a slow machine.
ANSWER_S = 45.0
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
    """How one line ended; `problems` is empty if it is as expected."""

    line: Line
    status: str
    problems: list[str] = field(default_factory=list)


class DaySender:
    """Sends all lines of a day once."""

    def __init__(self, lines: list[Line], run: Run, frontend: Frontend, desk: DeskClient) -> None:
        self._lines = lines
        self._run = run
        self._frontend = frontend
        self._desk = desk
        self._systems: dict[str, str] = {}
        self._limits: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(MAX_CONCURRENT))
        self._raw: dict[str, asyncio.Future[bytes]] = {}

    async def send(
        self, set_up: SetUp, systems: dict[str, str], ended: Callable[[LineResult], None]
    ) -> list[LineResult]:
        """Send all lines and return their results.

        `systems` has the booking system of each jobcenter. `ended` is called with each result as soon as it is known.
        """
        self._systems = systems
        self._raw = {line.id: asyncio.get_running_loop().create_future() for line in self._lines}
        await self._carry_out(set_up.controls)

        async def send_one(line: Line) -> LineResult:
            result = await self._send_line(line)
            ended(result)
            return result

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(send_one(line)) for line in self._lines]
            group.create_task(self._at_noon(set_up))
        return [task.result() for task in tasks]

    async def _at_noon(self, set_up: SetUp) -> None:
        if set_up.morning:
            await asyncio.wait([self._raw[name] for name in set_up.morning])
        await self._carry_out(set_up.noon)

    async def _carry_out(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            await self._desk.control(self._run.resolve(step))

    async def _send_line(self, line: Line) -> LineResult:
        try:
            return await self._send_and_check(line)
        except TimeoutError:
            return LineResult(line, "no answer", ["no answer came in time"])
        except ValueError as error:
            return LineResult(line, "not sent", [str(error)])
        finally:
            self._raw[line.id].cancel()  # no effect if it has a result

    async def _send_and_check(self, line: Line) -> LineResult:
        if line.after:
            await asyncio.wait([self._raw[line.after]])
        if line.when:
            await self._wait_for_call(line.when)
        await self._carry_out(line.before)
        async with self._limit(line):
            sent = self._run.body(line)
            raw, answer = await self._frontend.ask(
                line.key, line.type, sent, mark=f"{self._run.run_id}/{line.id}", wait_s=ANSWER_S
            )
        self._run.answers[line.id] = answer
        self._raw[line.id].set_result(raw)
        await self._carry_out(line.afterwards)
        problems = mismatches(line, json.loads(sent) if line.raw is None else {}, answer)
        return await self._check_later(line, raw, LineResult(line, str(answer.get("status")), problems))

    def _limit(self, line: Line) -> asyncio.Semaphore:
        """The limit for this line. Lines that must be sent at a certain time, or call no system, have their own."""
        system = self._systems.get(str(line.body.get("jobcenterkode")), "")
        separate = line.when or (line.report or {}).get("into") or line.type == REPORT
        return self._limits[f"{system}, separate" if separate else system]

    async def _check_later(self, line: Line, raw: bytes, result: LineResult) -> LineResult:
        """Check what is known only after the answer: equality with another line's answer, and the final outcome."""
        if line.is_copy:
            first = self._raw[line.expect["same_as"]]
            await asyncio.wait([first])
            if first.cancelled() or first.result() != raw:
                result.problems.append("its answer differs from the first answer")
        if line.final and not result.problems:
            event = await self._frontend.final_event(self._run.request_id(line), FINAL_S)
            result.status = f"{result.status}, then {event.get('outcome')}"
            result.problems += final_mismatches(line.final, event)
        return result

    async def _wait_for_call(self, when: dict[str, Any]) -> None:
        """Wait until a system has received `when["operation"]` for the citizen of the line `when["of"]`."""
        other = next(line for line in self._lines if line.id == when["of"])
        citizen = self._run.resolve(other.body["cpr"].replace("@citizen:", "@token:"))
        filters = {"operation": when["operation"], "citizen": citizen}
        async with asyncio.timeout(WHEN_S):
            while not await self._desk.get(when["system"], "calls", filters):  # noqa: ASYNC110 - another process
                await asyncio.sleep(POLL_S)


async def check_books(lines: list[Line], desk: DeskClient, systems: list[str]) -> list[str]:
    """Sentences about what is not as expected in the sandbox's books after this day; empty if all is well."""
    problems: list[str] = []
    done: Counter[str] = Counter()
    for system in systems:
        found = await desk.get(system, "breaches")
        problems += [f"{system}: breach of the contract: {breach}" for breach in found["breaches"]]
        books = await desk.get(system, "books")
        problems += [f"{system}: {what}" for what in books["disagreements"]]
        done.update(entry["what"] for entry in books["entries"])
    expected = Counter(EFFECTS[line.type] for line in lines if line.ends == "done" and line.type in EFFECTS)
    for what in dict.fromkeys(EFFECTS.values()):
        if done[what] != expected[what]:
            problems.append(f"meetings {what}: {done[what]} in the books, {expected[what]} expected")
    return problems
