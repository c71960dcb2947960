"""Acts on a supplier's lane: pause, resume, send a test report."""

from __future__ import annotations

from aiohttp import web

from broker import ops
from broker.console.context import OPERATIONS, SETTINGS, actor_of, render, see_other
from broker.ops import Refusal
from config.directory import load_directory
from config.sources import ConfigProblem

PAUSE = (
    "Nothing is handed over to this supplier until its lane is resumed. Deliveries under way are finished."
)
TEST = (
    "Sends a report about the fictitious citizen agreed with the supplier; its text says that it is a test. It is"
    " delivered like every report: on the lane, with the supplier's address and credentials."
    " It can end as a dead letter."
)
RESUME = "A paused lane opens again. A parked lane sends one report as a probe at once."


async def confirm_pause(request: web.Request) -> web.StreamResponse:
    """Say what pausing means and ask for the reason."""
    return await _confirm(request, "Pause the lane of", PAUSE, "Pause")


async def confirm_resume(request: web.Request) -> web.StreamResponse:
    """Say what resuming means and ask for the reason."""
    return await _confirm(request, "Resume the lane of", RESUME, "Resume")


async def pause(request: web.Request) -> web.StreamResponse:
    """Pause the lane."""
    supplier = request.match_info["supplier"]
    lane = await request.app[OPERATIONS].lanes.pause(supplier, actor_of(request))
    return see_other(request, "/suppliers", f"The lane of {supplier} is {lane.state}.")


async def resume(request: web.Request) -> web.StreamResponse:
    """Resume the lane."""
    supplier = request.match_info["supplier"]
    lane = await request.app[OPERATIONS].lanes.resume(supplier, actor_of(request))
    return see_other(request, "/suppliers", f"The lane of {supplier} is {lane.state}.")


async def confirm_test(request: web.Request) -> web.StreamResponse:
    """Say what a test report is and ask for the reason."""
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


async def send_test(request: web.Request) -> web.StreamResponse:
    """Put a test report on the lane and show its trace."""
    supplier, actor = request.match_info["supplier"], actor_of(request)
    # Read again, because the workers may have reloaded the directory since this process started.
    try:
        directory = load_directory(request.app[SETTINGS].directory.file)
    except ConfigProblem:
        raise Refusal("the directory cannot be read: jobnet-broker config check says why") from None
    report_id = await ops.send_test_report(request.app[OPERATIONS], directory, supplier, actor)
    return see_other(request, f"/trace/{report_id}", "The test report is due; this is its trace.")


async def _confirm(request: web.Request, verb: str, meaning: str, label: str) -> web.StreamResponse:
    row = await request.app[OPERATIONS].lanes.one(request.match_info["supplier"])
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
