"""A person's word to a supplier's lane: pause it, let it go on."""

from __future__ import annotations

from aiohttp import web

from broker import ops
from broker.console.context import DESK, SETTINGS, actor, render, see_other
from broker.ops import Refusal
from config.directory import load_directory
from config.sources import ConfigProblem

PAUSE = "Nothing is handed over to this supplier until its lane is resumed; what is being delivered ends."
TEST = (
    "A report of an invented citizen, agreed with the supplier, that says it is a test. It goes the way of every"
    " report: on the lane, with the supplier's own address and credentials, and it can die like one."
)
RESUME = "A paused lane goes on; a parked one lets a report go as a probe at once."


async def ask_pause(request: web.Request) -> web.StreamResponse:
    """What pausing means, and the reason."""
    return await _ask(request, "Pause the lane of", PAUSE, "Pause")


async def ask_resume(request: web.Request) -> web.StreamResponse:
    """What resuming means, and the reason."""
    return await _ask(request, "Resume the lane of", RESUME, "Resume")


async def pause(request: web.Request) -> web.StreamResponse:
    """Do it, and show the lane."""
    supplier = request.match_info["supplier"]
    lane = await ops.pause(request.app[DESK], supplier, actor(request))
    return see_other(request, "/suppliers", f"The lane of {supplier} is {lane.state}.")


async def resume(request: web.Request) -> web.StreamResponse:
    """Do it, and show the lane."""
    supplier = request.match_info["supplier"]
    lane = await ops.resume(request.app[DESK], supplier, actor(request))
    return see_other(request, "/suppliers", f"The lane of {supplier} is {lane.state}.")


async def ask_test(request: web.Request) -> web.StreamResponse:
    """What a test report is, and the reason."""
    supplier = request.match_info["supplier"]
    return render(
        "act.html",
        request,
        title=f"Send a test report to {supplier}",
        meaning=TEST,
        facts={},
        action=request.path,
        label="Send",
    )


async def test(request: web.Request) -> web.StreamResponse:
    """Put it on the lane, and show its story. The directory is read anew: the workers may have, too."""
    supplier, by = request.match_info["supplier"], actor(request)
    try:
        directory = load_directory(request.app[SETTINGS].directory.file)
    except ConfigProblem:
        raise Refusal("the directory cannot be read: jobnet-broker config check says why") from None
    report_id = await ops.send_test_report(request.app[DESK], directory, supplier, by)
    return see_other(request, f"/trace/{report_id}", "The test report is due; here is what becomes of it.")


async def _ask(request: web.Request, verb: str, meaning: str, label: str) -> web.StreamResponse:
    row = await ops.lane(request.app[DESK], request.match_info["supplier"])
    facts = {"state": row.lane.state.value, "waiting": row.waiting, "being delivered": row.delivering}
    return render(
        "act.html",
        request,
        title=f"{verb} {row.lane.supplier}",
        meaning=meaning,
        facts=facts,
        action=request.path,
        label=label,
        kind="danger" if label == "Pause" else "",
    )
