"""The control interface of a stand-in system over HTTP: script, mode, meetings, received calls, contract breaches.

For tests, and for curl. It is not part of the contract, and its calls are not in the journal.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from sandbox.books import Refusal
from sandbox.journal import Journal
from sandbox.scripting import BadStep, Script, step_from

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Controlled(Protocol):
    """The parts of `System` that can be controlled. A protocol, because system.py imports this module."""

    scripts: Script
    journal: Journal

    @property
    def is_up(self) -> bool: ...
    async def up(self) -> None: ...
    def go_down_soon(self) -> None: ...
    def release(self) -> None: ...
    def reset(self) -> None: ...
    def seed(self, body: dict[str, Any], /) -> None: ...
    def books(self) -> dict[str, Any]: ...
    def inbox(self) -> list[dict[str, Any]]: ...


def control_routes(system_of: Callable[[web.Request], Controlled], prefix: str = "") -> list[web.RouteDef]:
    """GET and POST /_control/…: JSON in, JSON out. An invalid request gets 400 and a sentence with the reason."""

    def handler(work: Callable[[Controlled, Any], Awaitable[Any] | Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                body = json.loads(await request.read() or b"{}")
                result = work(system_of(request), body)
                if isinstance(result, Awaitable):
                    result = await result
            except (ValueError, KeyError, Refusal) as error:
                return web.json_response({"error": str(error)}, status=400)
            return web.json_response(result if result is not None else {"ok": True})

        return handle

    root = f"{prefix}/_control"
    return [
        web.get(f"{root}/script", handler(lambda system, _: system.scripts.to_json())),
        web.post(f"{root}/script", handler(_add_steps)),
        web.post(f"{root}/clear", handler(_clear)),
        web.post(f"{root}/reset", handler(lambda system, _: system.reset())),
        web.post(f"{root}/seed", handler(lambda system, body: system.seed(body))),
        web.post(f"{root}/mode", handler(_mode)),
        web.get(f"{root}/mode", handler(lambda system, _: {"mode": "up" if system.is_up else "down"})),
        web.get(f"{root}/books", handler(lambda system, _: system.books())),
        web.get(f"{root}/inbox", handler(lambda system, _: system.inbox())),
        web.get(f"{root}/breaches", handler(_breaches)),
        web.get(f"{root}/calls", handler(_calls)),
        web.get(
            f"{root}/followed", handler(lambda system, _: system.journal.breach("a redirect was followed"))
        ),
    ]


def _breaches(system: Controlled, _: Any) -> dict[str, Any]:
    return {"breaches": system.journal.breaches, "count": system.journal.breach_count}


def _calls(system: Controlled, body: Any) -> list[dict[str, Any]]:
    """The last calls received; the members of `body` filter them, for example by citizen or operation."""
    calls = (call.to_json() for call in system.journal.calls)
    return [call for call in calls if body.items() <= call.items()] if body else list(calls)


def _add_steps(system: Controlled, body: Any) -> None:
    for raw in body if isinstance(body, list) else [body]:
        system.scripts.add(step_from(raw))


def _clear(system: Controlled, body: Any) -> None:
    """Remove script steps (all, or those with a label) and end the calls that hang."""
    system.scripts.clear(body.get("label"))
    system.release()


async def _mode(system: Controlled, body: Any) -> None:
    """`down` or `up`. `down` closes this interface too; to bring the system up again, ask the sandbox's main port."""
    mode = body.get("mode")
    if mode not in ("up", "down"):
        raise BadStep("mode is up or down")
    if mode == "up":
        await system.up()
    else:
        system.go_down_soon()
