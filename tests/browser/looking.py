"""How a page is looked at: with axe-core for what keeps people out, for its width, for a picture of it."""

from __future__ import annotations

import os

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

PICTURES = os.environ.get("JOBNET_PICTURES")
HARMFUL = ("serious", "critical")


async def barriers(page: Page) -> list[str]:
    """What axe-core calls serious or critical on this page, in a line each."""
    found = await Axe().run(page)
    return [
        f"{one['impact']} {one['id']}: {one['help']}: {node['html'][:150]}"
        for one in found.response["violations"]
        if one["impact"] in HARMFUL
        for node in one["nodes"]
    ]


async def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    width: int = await page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return width


async def picture(page: Page, name: str) -> None:
    """A picture for the documents, when JOBNET_PICTURES names a folder for them; else nothing."""
    if PICTURES:
        # Playwright makes the folder.
        await page.screenshot(path=f"{PICTURES}/{name}.png", animations="disabled")
