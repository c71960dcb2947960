"""Carries out a script step on an HTTP connection: late, wrong, cut-off or very large answers.

The step limits every wait and every size.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
import zlib
from collections.abc import Awaitable, Callable

from aiohttp import web

from sandbox.contract import problem
from sandbox.scripting import Step

Work = Callable[[], Awaitable[web.StreamResponse]]
POLL_S = 0.05
CHUNK = b" " * 65536
WRONG_SHAPE = (
    b'{"moedetilbud": "none", "tider": 7, "type": [], "indkaldelseId": {"a": null}, "reserveretTil": "soon"}'
)


async def act(
    step: Step, request: web.Request, work: Work, released: asyncio.Event
) -> web.StreamResponse | None:
    """The answer of this step, or None if the connection was cut. `work` carries out the call."""
    if step.action == "slow" and not step.after_work:
        await asyncio.sleep(step.seconds)
    if step.action in ("ok", "slow", "snatch") or step.after_work:
        answer = await work()
    if step.action == "slow" and step.after_work:
        await asyncio.sleep(step.seconds)
    if step.action in ("ok", "slow", "snatch"):
        return answer
    return await _FAULTS[step.action](step, request, released)


async def _hang(step: Step, request: web.Request, released: asyncio.Event) -> None:
    until = time.monotonic() + step.seconds
    while time.monotonic() < until and request.transport is not None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(released.wait(), POLL_S)
            break
    cut(request)


async def _status(step: Step, request: web.Request, released: asyncio.Event) -> web.StreamResponse:
    bare = web.Response(status=step.status, text=None if step.status == 204 else "not today")
    answer = problem(step.fault, step.status) if step.fault else bare
    if step.retry_after is not None:
        answer.headers["Retry-After"] = step.retry_after
    return answer


async def _garbage(step: Step, request: web.Request, released: asyncio.Event) -> web.StreamResponse:
    return web.Response(body=b'{"tider": [{"starttidspunkt": "20\xff', content_type="application/json")


async def _wrong_shape(step: Step, request: web.Request, released: asyncio.Event) -> web.StreamResponse:
    return web.Response(body=WRONG_SHAPE, content_type="application/json")


async def _html(step: Step, request: web.Request, released: asyncio.Event) -> web.StreamResponse:
    return web.Response(text="<html><body><h1>Driftsvindue</h1></body></html>", content_type="text/html")


async def _redirect(step: Step, request: web.Request, released: asyncio.Event) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "/_control/followed"})


async def _reset(step: Step, request: web.Request, released: asyncio.Event) -> None:
    cut(request)


async def _half(step: Step, request: web.Request, released: asyncio.Event) -> web.StreamResponse | None:
    answer = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b'{"tider": [')
    cut(request, gently=True)
    return None


async def _huge(step: Step, request: web.Request, released: asyncio.Event) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    await answer.prepare(request)
    for _ in range(step.size // len(CHUNK)):
        await answer.write(CHUNK)
    await answer.write_eof(b"{}")
    return answer


async def _bomb(step: Step, request: web.Request, released: asyncio.Event) -> web.StreamResponse:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(packer.compress(CHUNK) for _ in range(step.size // len(CHUNK))) + packer.flush()
    return web.Response(body=packed, headers={"Content-Type": "application/json", "Content-Encoding": "gzip"})


Fault = Callable[[Step, web.Request, asyncio.Event], Awaitable[web.StreamResponse | None]]
_FAULTS: dict[str, Fault] = {
    "hang": _hang,
    "status": _status,
    "garbage": _garbage,
    "wrong_shape": _wrong_shape,
    "html": _html,
    "redirect": _redirect,
    "reset": _reset,
    "half": _half,
    "huge": _huge,
    "bomb": _bomb,
}


def cut(request: web.Request, *, gently: bool = False) -> None:
    """End the connection with a reset (RST) or, if `gently`, after the data written so far has been sent."""
    transport = request.transport
    if transport is None:
        return
    if gently:
        transport.close()
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
