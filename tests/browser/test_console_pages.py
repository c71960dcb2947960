"""The operators' console in a real browser: what each role sees and may do, a dead letter's way back, a reveal."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from playwright.async_api import Page, expect

from broker.console.page_routes import TABLE
from broker.console.table import PageRoute
from tests.browser.conftest import DESK, PHONE, Console, NewPage
from tests.browser.looking import barriers, overflow, picture, set_switch
from tests.functional.running_broker import RunningBroker
from tests.support import poll

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

EVERYBODYS = {"Overview", "Dead letters", "Replays", "Suppliers", "Trace", "Operator log"}
PLACES = {
    "viewer": EVERYBODYS,
    "operator": EVERYBODYS,
    "privacy": EVERYBODYS | {"Find"},
    "admin": EVERYBODYS | {"Sessions"},
}
FORBIDDEN = {
    "viewer": ("/find", "/sessions", "/suppliers/bro/pause", "/dead/discard", "/replays/new"),
    "operator": ("/find", "/sessions"),
    "privacy": ("/sessions", "/suppliers/bro/pause", "/dead/discard", "/replays/new"),
    "admin": ("/find",),
}


async def report_as_karla(page: Page, jobnet: str, words: str) -> None:
    """Karla's booking system is down; she tells its supplier, havn."""
    await page.goto(f"{jobnet}/borger/karla/book")
    await page.get_by_role("link", name="Mødetilbud 1").click()
    await page.get_by_role("button", name="Indmeld booking-fejl").click()
    await page.get_by_role("dialog").get_by_label("Fejltekst").fill(words)
    await page.get_by_role("dialog").get_by_role("button", name="Indmeld", exact=True).click()
    await expect(page.get_by_role("dialog")).to_contain_text("Du har nu indmeldt en fejl")


@pytest.mark.parametrize("role", list(PLACES))
async def test_each_role_sees_its_places_and_no_other(page: Page, console: Console, role: str) -> None:
    await console.log_in(page, role)
    places = page.get_by_role("navigation", name="Pages").get_by_role("link")
    assert set(await places.all_text_contents()) == PLACES[role]
    for place in PLACES[role]:
        await page.get_by_role("navigation").get_by_role("link", name=place, exact=True).click()
        await expect(page.get_by_role("heading", level=1)).not_to_have_text("Not allowed")


@pytest.mark.parametrize("role", list(FORBIDDEN))
async def test_an_address_typed_by_hand_is_no_way_round(
    new_page: NewPage, console: Console, role: str
) -> None:
    page = await new_page(refusals=True)
    await console.log_in(page, role)
    for path in FORBIDDEN[role]:
        answer = await page.goto(console.address + path)
        assert answer is not None
        assert answer.status == 403, path
        await expect(page.get_by_role("heading", level=1)).to_have_text("Not allowed")


async def dead_letter(broker: RunningBroker, supplier: str) -> str:
    """The id of the newest dead letter of a supplier, once the ledger has one."""

    async def newest() -> str | None:
        rows = await broker.rows(
            "SELECT letter_id FROM letters WHERE supplier = $1 ORDER BY first_seen_at DESC LIMIT 1", supplier
        )
        return str(rows[0][0]) if rows else None

    return str(await poll(newest, timeout=40, what=f"a dead letter of {supplier}"))


@dataclass(frozen=True)
class AtLeast:
    """A whole number that is not smaller, as a pattern: reports of one failure need not die together."""

    number: int

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(f"^({'|'.join(str(self.number + more) for more in range(9))})$")


async def some_dead_letter(page: Page, jobnet: str, broker: RunningBroker) -> str:
    """A dead letter that is there and stays: made now unless an earlier test left one."""
    if not await broker.rows("SELECT letter_id FROM letters WHERE supplier = 'havn'"):
        await set_switch(page, jobnet, "pil", "Down")
        await set_switch(page, jobnet, "havn", "Refuses")
        await report_as_karla(page, jobnet, "Ingen svarer.")
    return await dead_letter(broker, "havn")


async def test_a_dead_letter_appears_live_and_is_replayed_with_a_canary_and_delivered(
    new_page: NewPage, jobnet: str, console: Console
) -> None:
    citizen, operator = await new_page(), await new_page()
    await console.log_in(operator, "operator")
    card = operator.locator(".card", has=operator.get_by_role("link", name="Dead letters"))
    dead = card.locator(".big")
    before = int(await dead.inner_text())
    await set_switch(citizen, jobnet, "pil", "Down")
    await set_switch(citizen, jobnet, "havn", "Refuses")
    await report_as_karla(citizen, jobnet, "Jeg kan ikke booke.")
    await expect(dead).to_have_text(AtLeast(before + 1).pattern, timeout=60_000)  # and nobody reloads
    await picture(operator, "console-overview")

    await card.get_by_role("link").click()
    group = operator.get_by_role("region", name="Groups of dead letters").get_by_role("row", name="havn")
    await expect(group.first).to_be_visible()
    await picture(operator, "console-dead-letters")
    await operator.goto(f"{console.address}/dead?supplier=havn")
    await operator.get_by_role("link", name="Replay all of these…").click()
    await operator.get_by_label("Reason").fill("havn takes them again")
    await operator.get_by_role("button", name="Freeze and preview").click()
    await expect(operator.get_by_role("status")).to_contain_text("Frozen")
    await set_switch(citizen, jobnet, "havn", "Well")
    await operator.get_by_role("button", name="Start with a canary").click()
    progress = operator.locator("#progress")
    await expect(progress).to_have_attribute("data-state", "done", timeout=60_000)  # it renews itself
    await expect(progress.get_by_role("link")).to_be_visible()  # the canary
    await picture(operator, "console-replay")

    await citizen.goto(f"{jobnet}/sandbox/havn/inbox")
    await expect(citizen.get_by_text("Jeg kan ikke booke.")).to_be_visible()
    await progress.get_by_role("link").click()
    await expect(operator.locator(".timeline")).to_contain_text("delivered")
    await picture(operator, "console-trace")


async def test_a_supplier_that_is_down_parks_its_lane_before_ones_eyes(
    new_page: NewPage, jobnet: str, console: Console
) -> None:
    citizen, viewer = await new_page(), await new_page()
    await console.log_in(viewer, "viewer")
    lane = viewer.get_by_role("region", name="Lanes").get_by_role("row", name="havn")
    await set_switch(citizen, jobnet, "pil", "Down")
    await set_switch(citizen, jobnet, "havn", "Down")
    await report_as_karla(citizen, jobnet, "Stadig ingen tider.")
    await expect(lane).to_contain_text(re.compile("parked|probing"), timeout=60_000)
    await set_switch(citizen, jobnet, "havn", "Well")
    await expect(lane).to_contain_text("open", timeout=60_000)
    await citizen.goto(f"{jobnet}/sandbox/havn/inbox")
    await expect(citizen.get_by_text("Stadig ingen tider.")).to_be_visible(timeout=60_000)
    await lane.get_by_role("link", name="havn").click()
    await expect(viewer.locator(".timeline").first).to_contain_text("parked")
    await picture(viewer, "console-supplier")


async def test_a_reveal_asks_why_and_is_logged(
    new_page: NewPage, jobnet: str, console: Console, broker: RunningBroker
) -> None:
    page = await new_page()
    await set_switch(page, jobnet, "pil", "Down")
    await report_as_karla(page, jobnet, "Min tid forsvandt.")
    await set_switch(page, jobnet, "pil", "Well")
    report = (await broker.rows("SELECT report_id FROM reports WHERE kind = 'citizen'"))[0][0]

    privacy = await new_page()
    await console.log_in(privacy, "privacy")
    await privacy.goto(f"{console.address}/trace/{report}")
    await expect(privacy.locator("body")).not_to_contain_text(NUMBER)
    await privacy.get_by_role("link", name="Reveal one field of it…").last.click()
    await privacy.get_by_label("Field").fill("cpr")
    await privacy.get_by_role("button", name="Reveal").click()  # the browser wants a reason first
    await expect(privacy.locator("#revealed")).to_have_count(0)
    await privacy.get_by_label("Reason").fill("The supplier cannot find the citizen")
    await privacy.get_by_role("button", name="Reveal").click()
    await expect(privacy.locator("#revealed")).to_have_text(NUMBER)
    await privacy.get_by_role("link", name="Operator log").click()
    entry = privacy.get_by_role("row", name="The supplier cannot find the citizen")
    await expect(entry).to_contain_text(str(report))
    await expect(privacy.locator("main")).not_to_contain_text(NUMBER)


NUMBER = re.compile(r"\b\d{6}-?\d{4}\b")


@dataclass(frozen=True)
class Examples:
    """What the addresses of the table are filled with."""

    letter: str
    report: str
    replay: str

    def of(self, row: PageRoute) -> str:
        """An address that the row answers with a page."""
        thing = {"/replays": self.replay, "/reveal": self.report}.get(
            row.path.partition("/{")[0], self.letter
        )
        path = row.path.replace("{supplier}", "havn").replace("{id}", thing)
        return f"{path}?supplier=havn" if row.path in OF_LETTERS else path


OF_LETTERS = ("/dead/discard", "/dead/restore", "/replays/new")
NO_PAGES = {"/static/{name}", "/events", "/login/link/{link}"}
# Offered for a dead booking only, which takes days to come about.
OF_BOOKINGS = {"/dead/{id}/verify"}


@pytest.mark.parametrize(("scheme", "width"), [("light", PHONE), ("dark", DESK)], ids=["phone", "desk"])
async def test_every_page_fits_and_keeps_nobody_out(
    new_page: NewPage,
    jobnet: str,
    console: Console,
    broker: RunningBroker,
    scheme: str,
    width: dict[str, int],
) -> None:
    page = await new_page(viewport=width, color_scheme=scheme)
    letter = await some_dead_letter(page, jobnet, broker)
    await page.goto(f"{console.address}/login")
    wrong = {"/login": (await barriers(page), await overflow(page))}
    await console.log_in(page, "operator", "privacy", "admin")
    await page.goto(f"{console.address}/replays/new?supplier=havn")
    await page.get_by_label("Reason").fill("only to be looked at")
    await page.get_by_role("button", name="Freeze and preview").click()
    await expect(page.get_by_role("status")).to_contain_text("Frozen")
    report = str((await broker.rows("SELECT report_id FROM reports LIMIT 1"))[0][0])
    examples = Examples(letter, report, page.url.rpartition("/")[2])
    for row in TABLE:
        if row.method == "GET" and row.path not in NO_PAGES | OF_BOOKINGS | {"/login"}:
            await page.goto(console.address + examples.of(row))
            wrong[row.path] = (await barriers(page), await overflow(page))
    assert {path: found for path, found in wrong.items() if found != ([], [])} == {}


async def test_an_operator_pauses_a_lane_and_lets_it_go_on(
    page: Page, jobnet: str, console: Console, broker: RunningBroker
) -> None:
    await console.log_in(page, "operator")
    for verb, state in (("Pause", "paused"), ("Resume", "open")):
        await page.goto(f"{console.address}/suppliers/bro/{verb.lower()}")
        await page.get_by_label("Reason").fill(f"{verb} for the test")
        await page.get_by_role("button", name=verb, exact=True).click()
        await expect(page.get_by_role("status")).to_have_text(f"The lane of bro is {state}.")
    await page.get_by_role("link", name="Operator log").click()
    await expect(page.get_by_role("row", name="Pause for the test")).to_contain_text("bro")


async def test_an_admin_ends_the_session_of_another(new_page: NewPage, console: Console) -> None:
    viewer, admin = await new_page(), await new_page()
    await console.log_in(viewer, "viewer")
    await console.log_in(admin, "admin")
    await admin.get_by_role("link", name="Sessions").click()
    session = admin.locator("section", has=admin.get_by_role("heading", name="viewer")).first
    await session.get_by_label("Reason").fill("left the desk")
    await session.get_by_role("button", name="End session").click()
    await expect(admin.get_by_role("status")).to_contain_text("ended")
    await viewer.goto(f"{console.address}/trace")
    await expect(viewer.get_by_role("heading", level=1)).to_have_text("Log in")


async def test_a_test_report_goes_the_whole_way_and_names_nobody(
    page: Page, jobnet: str, console: Console
) -> None:
    await console.log_in(page, "operator")
    await page.goto(f"{console.address}/suppliers/moelle")
    await page.get_by_role("link", name="Test report…").click()
    await page.get_by_label("Reason").fill("is the new key known?")
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_role("status")).to_contain_text("The test report is due")
    await page.goto(f"{jobnet}/sandbox/moelle/inbox")
    letter = page.locator("article", has_text="TEST: Dette er en prøvemelding")  # the page renews itself
    await expect(letter).to_contain_text("signature: verified")
    await letter.get_by_role("button", name="Show the CPR number").click()
    await expect(page.locator("[data-cpr]", has_text="010136-4999")).to_be_visible()
