"""The control interface of a stand-in system over HTTP: script, mode, meetings, received calls, contract breaches.

For tests, and for a person with curl. It is no part of the contract, and its calls are not in the journal.
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
    def seed(self, wanted: dict[str, Any], /) -> None: ...
    def books(self) -> dict[str, Any]: ...
    def inbox(self) -> list[dict[str, Any]]: ...


def control_routes(system_of: Callable[[web.Request], Controlled], prefix: str = "") -> list[web.RouteDef]:
    """GET and POST /_control/…: JSON in, JSON out; an invalid request gets 400 with a sentence that says why."""

    def door(work: Callable[[Controlled, Any], Awaitable[Any] | Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                wanted = json.loads(await request.read() or b"{}")
                result = work(system_of(request), wanted)
                if isinstance(result, Awaitable):
                    result = await result
            except (ValueError, KeyError, Refusal) as error:
                return web.json_response({"error": str(error)}, status=400)
            return web.json_response(result if result is not None else {"ok": True})

        return handle

    at = f"{prefix}/_control"
    return [
        web.get(f"{at}/script", door(lambda system, _: system.scripts.to_json())),
        web.post(f"{at}/script", door(_add_steps)),
        web.post(f"{at}/clear", door(_clear)),
        web.post(f"{at}/reset", door(lambda system, _: system.reset())),
        web.post(f"{at}/seed", door(lambda system, wanted: system.seed(wanted))),
        web.post(f"{at}/mode", door(_mode)),
        web.get(f"{at}/mode", door(lambda system, _: {"mode": "up" if system.is_up else "down"})),
        web.get(f"{at}/books", door(lambda system, _: system.books())),
        web.get(f"{at}/inbox", door(lambda system, _: system.inbox())),
        web.get(f"{at}/breaches", door(_breaches)),
        web.get(f"{at}/calls", door(_calls)),
        web.get(f"{at}/followed", door(lambda system, _: system.journal.breach("a redirect was followed"))),
    ]


def _breaches(system: Controlled, _: Any) -> dict[str, Any]:
    return {"breaches": system.journal.breaches, "count": system.journal.breach_count}


def _calls(system: Controlled, wanted: Any) -> list[dict[str, Any]]:
    """The last calls received; the members of `wanted` filter them, for example by citizen or operation."""
    calls = (call.to_json() for call in system.journal.calls)
    return [call for call in calls if wanted.items() <= call.items()] if wanted else list(calls)


def _add_steps(system: Controlled, wanted: Any) -> None:
    for raw in wanted if isinstance(wanted, list) else [wanted]:
        system.scripts.add(step_from(raw))


def _clear(system: Controlled, wanted: Any) -> None:
    """Remove script steps (all, or those with a label) and end the calls that hang."""
    system.scripts.clear(wanted.get("label"))
    system.release()


async def _mode(system: Controlled, wanted: Any) -> None:
    """`down` or `up`. `down` closes this interface too; to bring the system up again, ask the sandbox's main port."""
    mode = wanted.get("mode")
    if mode not in ("up", "down"):
        raise BadStep("mode is up or down")
    if mode == "up":
        await system.up()
    else:
        system.go_down_soon()
