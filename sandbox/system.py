"""The base of every stand-in system: a port that can go down, a script, a journal of calls and a control interface.

Each call takes the same path: check it against the contract, act out its script step, remember its x-requestId,
do the work. The subclasses do the work.
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
    """One stand-in system on its own port. Subclasses define its operations."""

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
        self._stopping: asyncio.Task[None] | None = None

    @property
    def base_url(self) -> str:
        """The address; the port is known after the first `up`."""
        return f"http://{self.host}:{self.port}"

    @property
    def is_up(self) -> bool:
        """Whether it listens."""
        return self._runner is not None

    @property
    def breaches(self) -> list[str]:
        """The breaches of the contract in the calls received; tests expect none."""
        return self.journal.breaches

    @property
    def remembers_ids(self) -> bool:
        """Whether a repeated x-requestId gives 412, as the contract says."""
        return True

    def routes(self) -> list[web.RouteDef]:
        """The contract's paths of this system."""
        raise NotImplementedError

    async def up(self) -> None:
        """Listen on the same port as before. The first time, port 0 means any free port."""
        if self._runner is not None:
            return
        app = web.Application(client_max_size=MAX_BODY)
        app.add_routes([*self.routes(), *control_routes(lambda _: self)])
        sock = self._socket()
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
        await runner.setup()
        self.port = sock.getsockname()[1]
        await web.SockSite(runner, sock).start()
        self._runner = runner

    async def down(self) -> None:
        """Close the listening socket and every connection. Calls in flight are cut off."""
        runner, self._runner = self._runner, None
        if runner is not None:
            self.release()
            await runner.cleanup()

    def go_down_soon(self) -> None:
        """Go down after the present call has been answered; it may be a call to this system's own control interface."""
        self._stopping = asyncio.create_task(self.down())

    def _socket(self) -> socket.socket:
        sock = socket.socket()
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.host, self.port))
        except OSError:
            sock.close()
            raise
        return sock

    def script(self, operation: str, action: str, **how: Any) -> Step:
        """Add a step to the script; the fields are those of `scripting.Step`. Raises BadStep."""
        step = step_from({"operation": operation, "action": action, **how})
        self.scripts.add(step)
        return step

    def release(self) -> None:
        """End every call that hangs now. Later calls hang again."""
        self.released.set()
        self.released = asyncio.Event()

    def reset(self) -> None:
        """Return to the state after a start: no script, calls, breaches, meetings or x-requestIds."""
        self.release()
        self.scripts.clear()
        self.journal.clear()
        self._request_ids.clear()

    def books(self) -> dict[str, Any]:
        """The meetings, the log of all changes, and the `disagreements` found in it. A Planner has none."""
        return {"meetings": [], "entries": [], "disagreements": []}

    def inbox(self) -> list[dict[str, Any]]:
        """The failure reports received. Only a supplier gets any."""
        return []

    def seed(self, wanted: dict[str, Any]) -> None:
        """Insert a meeting that existed before the test. Raises BadStep."""
        raise BadStep(f"{self.name} keeps no meetings")

    def before_work(self, step: Step, call: Call) -> None:
        """Hook: let a step change the system's state before the work."""

    def on_call(self, call: Call) -> None:
        """Hook: a call has arrived; its step is not acted out yet."""

    def on_answer(self, call: Call, answer: web.StreamResponse) -> None:
        """Hook: a call has been answered."""

    def refusal(self, call: Call) -> web.Response:
        """The answer to a call that breaks the contract."""
        return problem("ugyldig-besked")

    def handler(self, operation: str, rules: OperationRules, work: Work) -> Handler:
        """The HTTP handler of one operation of the contract."""

        async def read(request: web.Request) -> Call:
            return await read_call(request, operation, rules, self.served, datetime.now(UTC))

        return self.handler_reading(read, work)

    def handler_reading(self, read: Callable[[web.Request], Awaitable[Call]], work: Work) -> Handler:
        """An HTTP handler whose calls are read by `read`."""

        async def serve(request: web.Request) -> web.StreamResponse:
            call = await read(request)
            self.journal.begin(call)
            self.on_call(call)
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
            self.on_answer(call, answer)
            return answer

        return serve

    async def _answer(self, call: Call, request: web.Request, work: Work) -> web.StreamResponse | None:
        step = self.scripts.take(call)

        async def perform() -> web.StreamResponse:
            return self._perform(call, work)

        if step is None:
            return await perform()
        self.before_work(step, call)
        if step.remember and step.action != "ok":
            self._request_ids.remember(call.x_request_id, call.at)
        return await act(step, request, perform, self.released)

    def _perform(self, call: Call, work: Work) -> web.Response:
        if call.problems:
            return self.refusal(call)
        if self.remembers_ids and self._request_ids.seen(call.x_request_id, call.at):
            return web.Response(status=412, text="this x-requestId came before")
        self._request_ids.remember(call.x_request_id, call.at)
        try:
            answer = work(call)
        except Refusal as refusal:
            return problem(refusal.fault)
        except MemoryError:  # Books and Inbox are bounded
            return web.Response(status=507)
        call.worked = True
        return answer
