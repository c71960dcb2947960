"""The control door of a system: its script, mode, books, calls and breaches, over HTTP.

For tests and for a person with curl. Knows no contract and no calls of its own.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sandbox.books import Refusal
from sandbox.scripting import BadStep, step_from

if TYPE_CHECKING:  # a system opens its own door
    from sandbox.system import System

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def control_routes(system_of: Callable[[web.Request], System], prefix: str = "") -> list[web.RouteDef]:
    """The control door: GET and POST /_control/…; JSON in, JSON out, 400 with a sentence for a mistake."""

    def door(work: Callable[[System, Any], Awaitable[Any] | Any]) -> Handler:
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


def _breaches(system: System, _: Any) -> dict[str, Any]:
    return {"breaches": system.breaches, "count": system.journal.breach_count}


def _calls(system: System, wanted: Any) -> list[dict[str, Any]]:
    """The last calls; `wanted` may narrow them to one citizen, operation or the like."""
    told = (call.to_json() for call in system.journal.calls)
    return [call for call in told if wanted.items() <= call.items()] if wanted else list(told)


def _add_steps(system: System, wanted: Any) -> None:
    for raw in wanted if isinstance(wanted, list) else [wanted]:
        system.scripts.add(step_from(raw))


def _clear(system: System, wanted: Any) -> None:
    """Forget steps (all, or those of a label) and let what hangs go."""
    system.scripts.clear(wanted.get("label"))
    system.release()


async def _mode(system: System, wanted: Any) -> None:
    """`down` or `up`. Its own door closes with it: whoever wants it up again asks at the sandbox's desk."""
    mode = wanted.get("mode")
    if mode not in ("up", "down"):
        raise BadStep("mode is up or down")
    if mode == "up":
        await system.up()
    else:
        system.go_down_soon()
