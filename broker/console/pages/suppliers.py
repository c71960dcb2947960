"""Suppliers: all lanes with their figures; one supplier with waiting reports, attempts and the lane's history."""

from __future__ import annotations

from aiohttp import web

from broker.console.context import OPERATIONS, render
from broker.ops import SupplierStory


async def listing(request: web.Request) -> web.StreamResponse:
    """All suppliers: first those that need a person, then those whose lane is not open."""
    found = await request.app[OPERATIONS].suppliers.figures()
    found.sort(key=lambda row: (row.lane.lane.attention is None, row.lane.lane.state.value == "open"))
    return render("suppliers.html", request, suppliers=found)


async def detail(request: web.Request) -> web.StreamResponse:
    """One supplier."""
    story = await request.app[OPERATIONS].suppliers.story(request.match_info["supplier"])
    return render("supplier.html", request, story=story, day=day_of(story), lane=story.figures.lane.lane)


def day_of(story: SupplierStory) -> dict[str, list[int]]:
    """Reports of this supplier that ended in the last 24 hours, for each step of the flow."""
    name, steps = story.figures.supplier, story.flow.steps
    return {
        "good": [step.delivered.get(name, 0) for step in steps],
        "bad": [step.dead.get(name, 0) for step in steps],
    }
