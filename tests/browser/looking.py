"""How a page is looked at: with axe-core for what keeps people out, for its width, for a picture of it."""

from __future__ import annotations

import os

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

PICTURES = os.environ.get("JOBNET_PICTURES")
STICKS_OUT = """() => {
  const root = document.documentElement;
  if (root.scrollWidth <= root.clientWidth) return [];
  const wide = [...document.body.querySelectorAll("*")].filter(
    (one) => one.getBoundingClientRect().right > root.clientWidth + 0.5 && !one.closest(".scroll *"));
  return [`${root.scrollWidth - root.clientWidth} px`, ...wide.map((one) => one.outerHTML.slice(0, 100))];
}"""
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


async def overflow(page: Page) -> list[str]:
    """What sticks out of the window, so that one has to scroll sideways; empty if the page fits."""
    found: list[str] = await page.evaluate(STICKS_OUT)
    return found


async def picture(page: Page, name: str) -> None:
    """A picture for the documents, when JOBNET_PICTURES names a folder for them; else nothing."""
    if PICTURES:
        # Playwright makes the folder.
        await page.screenshot(path=f"{PICTURES}/{name}.png", animations="disabled")


async def set_switch(page: Page, jobnet: str, system: str, name: str) -> None:
    """Press a switch on the sandbox page, such as a fault of a booking system."""
    await page.goto(f"{jobnet}/sandbox")
    card = page.locator(f"#{system}")
    await card.get_by_role("button", name=name, exact=True).click()
    await expect(card.get_by_role("button", name=name, exact=True)).to_have_attribute("aria-pressed", "true")
