"""Suppliers: each lane with its figures; one supplier with what waits, its attempts and how its lane changed."""

from __future__ import annotations

from aiohttp import web

from broker.console.context import DESK, render
from broker.ops import SupplierStory


async def listed(request: web.Request) -> web.StreamResponse:
    """Every supplier, those that need somebody first."""
    found = await request.app[DESK].suppliers.figures()
    found.sort(key=lambda each: (each.lane.lane.attention is None, each.lane.lane.state.value == "open"))
    return render("suppliers.html", request, suppliers=found)


async def one(request: web.Request) -> web.StreamResponse:
    """One of them."""
    story = await request.app[DESK].suppliers.story(request.match_info["supplier"])
    return render("supplier.html", request, story=story, day=day_of(story), lane=story.figures.lane.lane)


def day_of(story: SupplierStory) -> dict[str, list[int]]:
    """Reports of this supplier that ended, in the steps of a day."""
    name, steps = story.figures.supplier, story.flow.steps
    return {
        "good": [step.delivered.get(name, 0) for step in steps],
        "bad": [step.dead.get(name, 0) for step in steps],
    }
