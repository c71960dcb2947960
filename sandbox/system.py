"""What a Planner, a booking system and a supplier share: a port that can go down, a script, a journal, a control door.

Each call goes the same way: checked against the contract, its script step acted out, its x-requestId
remembered, the work done. Knows nothing of meetings.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from sandbox.books import Refusal
from sandbox.contract import OperationRules, problem, read_call
from sandbox.control_api import control_routes
from sandbox.faulty_answers import act, cut
from sandbox.journal import Call, Journal, RequestIds
from sandbox.scripting import BadStep, Script, Step, step_from

MAX_BODY = 64 * 1024
STOP_S = 0.2

Work = Callable[[Call], web.Response]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class System:
    """One stand-in system on its own port. Subclasses say which operations it has."""

    def __init__(self, name: str, served: tuple[str, ...], *, host: str, port: int) -> None:
        self.name = name
        self.served = served
        self.host = host
        self.port = port
        self.scripts = Script()
        self.journal = Journal()
        self.released = asyncio.Event()
        self._request_ids = RequestIds()
        self._runner: web.AppRunner | None = None
        self._going: asyncio.Task[None] | None = None

    @property
    def base_url(self) -> str:
        """Where it is, once it has been up."""
        return f"http://{self.host}:{self.port}"

    @property
    def is_up(self) -> bool:
        """Whether it listens."""
        return self._runner is not None

    @property
    def breaches(self) -> list[str]:
        """How what arrived broke the contract; tests want it empty."""
        return self.journal.breaches

    @property
    def remembers_ids(self) -> bool:
        """Whether a repeated x-requestId gives 412, as the contract says."""
        return True

    def routes(self) -> list[web.RouteDef]:
        """The contract's paths of this system."""
        raise NotImplementedError

    async def up(self) -> None:
        """Listen, on the same port as before; chooses a free one the first time if none was given."""
        if self._runner is not None:
            return
        app = web.Application(client_max_size=MAX_BODY)
        app.add_routes([*self.routes(), *control_routes(lambda _: self)])
        listening = self._socket()
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
        await runner.setup()
        self.port = listening.getsockname()[1]
        await web.SockSite(runner, listening).start()
        self._runner = runner

    async def down(self) -> None:
        """Close the listening socket and every connection; calls in flight are cut."""
        runner, self._runner = self._runner, None
        if runner is not None:
            self.release()
            await runner.cleanup()

    def go_down_soon(self) -> None:
        """Down once the present call has been answered (it may have come through this system's own door)."""
        self._going = asyncio.create_task(self.down())

    def _socket(self) -> socket.socket:
        listening = socket.socket()
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self.host, self.port))
        except OSError:
            listening.close()
            raise
        return listening

    def script(self, operation: str, action: str, **how: Any) -> Step:
        """Add a step: see sandbox.scripting.Step. Raises BadStep."""
        step = step_from({"operation": operation, "action": action, **how})
        self.scripts.add(step)
        return step

    def release(self) -> None:
        """End every hang that is going on; later ones hang again."""
        self.released.set()
        self.released = asyncio.Event()

    def reset(self) -> None:
        """As newly started: no script, no calls, no breaches, no books, no x-requestIds."""
        self.release()
        self.scripts.clear()
        self.journal.clear()
        self._request_ids.clear()

    def books(self) -> dict[str, Any]:
        """What was done; a Planner has none."""
        return {"meetings": [], "entries": [], "disagreements": []}

    def inbox(self) -> list[dict[str, Any]]:
        """The failure reports received; only a supplier gets any."""
        return []

    def seed(self, wanted: dict[str, Any]) -> None:
        """Put something there that was there before. Raises BadStep."""
        raise BadStep(f"{self.name} keeps no meetings")

    def before_work(self, step: Step, call: Call) -> None:
        """What a step does to the system's own state before the work."""

    def arrived(self, call: Call) -> None:
        """What follows from a call that came, before its step is acted out."""

    def answered(self, call: Call, answer: web.StreamResponse) -> None:
        """What follows from an answer that was given."""

    def refusal(self, call: Call) -> web.Response:
        """The answer to a call that breaks the contract."""
        return problem("ugyldig-besked")

    def serving(self, operation: str, demand: OperationRules, work: Work) -> Handler:
        """The handler of one operation of the contract."""

        async def read(request: web.Request) -> Call:
            return await read_call(request, operation, demand, self.served, datetime.now(UTC))

        return self.answering(read, work)

    def answering(self, read: Callable[[web.Request], Awaitable[Call]], work: Work) -> Handler:
        """A handler that reads its calls in a way of its own."""

        async def serve(request: web.Request) -> web.StreamResponse:
            call = await read(request)
            self.journal.begin(call)
            self.arrived(call)
            try:
                answer = await self._answer(call, request, work)
            except ConnectionError:
                answer = None
            finally:
                self.journal.in_flight -= 1
            if answer is None:
                cut(request)
                return web.Response()
            call.status = answer.status
            self.answered(call, answer)
            return answer

        return serve

    async def _answer(self, call: Call, request: web.Request, work: Work) -> web.StreamResponse | None:
        step = self.scripts.take(call)

        async def do() -> web.StreamResponse:
            return self._do(call, work)

        if step is None:
            return await do()
        self.before_work(step, call)
        if step.remember and step.action != "ok":
            self._request_ids.remember(call.x_request_id, call.at)
        return await act(step, request, do, self.released)

    def _do(self, call: Call, work: Work) -> web.Response:
        if call.problems:
            return self.refusal(call)
        if self.remembers_ids and self._request_ids.seen(call.x_request_id, call.at):
            return web.Response(status=412, text="this x-requestId came before")
        self._request_ids.remember(call.x_request_id, call.at)
        try:
            answer = work(call)
        except Refusal as refusal:
            return problem(refusal.fault)
        except MemoryError:  # the books are full
            return web.Response(status=507)
        call.worked = True
        return answer
