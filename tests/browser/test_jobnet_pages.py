"""The citizens' pages in a real browser, against the real broker (release note 3.1 to 3.3)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import DESK, PHONE, NewPage
from tests.browser.looking import barriers, overflow, picture, set_switch
from tests.functional.running_broker import RunningBroker
from tests.support import poll

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


async def choose_first_time(page: Page, jobnet: str, citizen: str, way: str = "Book et møde") -> None:
    await page.goto(f"{jobnet}/borger/{citizen}")
    await page.get_by_role("main").get_by_role("link", name=way).click()
    await page.get_by_role("link", name="Mødetilbud 1").click()
    await page.get_by_label("Vælg dato, tidspunkt og mødeform").select_option(index=1)


async def test_a_meeting_is_booked_moved_and_cancelled(
    page: Page, jobnet: str, broker: RunningBroker
) -> None:
    await page.goto(jobnet)
    await page.get_by_role("link", name="Ellen Kornager").click()
    await choose_first_time(page, jobnet, "ellen")
    options = page.get_by_label("Vælg dato, tidspunkt og mødeform").locator("option")
    assert 1 < await options.count() <= 31
    await expect(options.nth(1)).to_have_text(
        re.compile(r"^\d+\. \w+\.? \d{4}, 08:00 · .+ · Personligt fremmøde$")
    )
    await picture(page, "jobnet-times")
    await page.get_by_role("button", name="Book mødet").click()
    await expect(page.get_by_role("heading", name="Dit møde er booket")).to_be_visible()
    assert await barriers(page) == []
    books = broker.sandbox.booking_system_of("90005").book
    assert len(books.meetings) == 1

    await page.reload()  # shows the answer again and asks for nothing
    await page.get_by_role("main").get_by_role("link", name="Mine møder").click()
    await page.get_by_role("link", name="Flyt mødet").click()
    await page.get_by_label("Vælg dato, tidspunkt og mødeform").select_option(index=5)
    await page.get_by_role("button", name="Flyt mødet").click()
    await expect(page.get_by_role("heading", name="Dit møde er flyttet")).to_be_visible()
    assert [entry.what for entry in books.entries if entry.what in ("booked", "moved")] == ["booked", "moved"]

    await page.get_by_role("main").get_by_role("link", name="Mine møder").click()
    await page.get_by_role("link", name="Aflys mødet").click()
    await page.get_by_role("button", name="Ja, aflys mødet").click()
    await expect(page.get_by_role("heading", name="Dit møde er aflyst")).to_be_visible()
    assert books.meetings == {}
    await page.get_by_role("main").get_by_role("link", name="Mine møder").click()
    await expect(page.get_by_text("Du har ingen møder")).to_be_visible()


async def test_ten_times_in_three_forms_are_thirty_rows(page: Page, jobnet: str) -> None:
    """Release note 3.1: each time once for every mødeform, in their order."""
    await page.goto(f"{jobnet}/borger/ellen/book")
    await page.get_by_role("link", name="Mødetilbud 2").click()
    rows = await page.get_by_label("Vælg dato, tidspunkt og mødeform").locator("option").all_text_contents()
    assert len(rows) == 1 + 30
    forms = [row.rpartition(" · ")[2] for row in rows[1:]]
    assert forms == ["Personligt fremmøde", "Telefonisk", "Digitalt møde"] * 10
    assert len({row.rpartition(" · ")[0] for row in rows[1:]}) == 10


async def test_the_jobcenters_proposal_is_accepted_without_a_contact_group(page: Page, jobnet: str) -> None:
    await page.goto(f"{jobnet}/borger/liv")
    await page.get_by_role("button", name="Sig ja til mødet").click()
    await expect(page.get_by_role("heading", name="Du har sagt ja til mødet")).to_be_visible()
    await page.get_by_role("main").get_by_role("link", name="Mine møder").click()
    await expect(page.get_by_text("Aftalt")).to_be_visible()


async def test_straksbooking_shows_the_form_of_each_time(page: Page, jobnet: str) -> None:
    await choose_first_time(page, jobnet, "ellen", "Straksbooking")
    await page.get_by_role("button", name="Book mødet").click()
    await expect(page.get_by_role("heading", name="Dit møde er booket")).to_be_visible()
    await expect(page.get_by_text("Personligt fremmøde")).to_be_visible()


async def test_without_a_contact_group_there_is_no_booking(page: Page, jobnet: str) -> None:
    """Release note 3.3."""
    await page.goto(f"{jobnet}/borger/viggo/book")
    await expect(page.get_by_role("alert")).to_contain_text("ikke registreret i en kontaktgruppe")
    await expect(page.get_by_role("button", name="Indmeld booking-fejl")).to_have_count(0)


async def test_what_a_citizen_writes_about_a_failure_reaches_the_supplier(
    page: Page, jobnet: str, broker: RunningBroker
) -> None:
    """Release note 3.2, all of it."""
    await choose_first_time(page, jobnet, "asta")
    await broker.sandbox.booking_system_of("90001").down()
    await page.get_by_role("button", name="Book mødet").click()
    alert = page.get_by_role("alert")
    await expect(alert).to_contain_text("Systemfejl i kontakten med jobcentrets bookingsystem.")
    await picture(page, "jobnet-failure")
    await page.get_by_role("button", name="Indmeld booking-fejl").click()
    pop_up = page.get_by_role("dialog")
    await expect(pop_up).to_be_visible()

    send, field = pop_up.get_by_role("button", name="Indmeld", exact=True), pop_up.get_by_label("Fejltekst")
    await expect(send).to_be_disabled()
    await pop_up.get_by_role("link", name="Forlad").click()
    await expect(pop_up).not_to_be_visible()
    await page.get_by_role("button", name="Indmeld booking-fejl").click()
    await pop_up.get_by_role("button", name="Luk").click()
    await expect(pop_up).not_to_be_visible()

    await page.get_by_role("button", name="Indmeld booking-fejl").click()
    await field.fill("Jeg trykkede på Book mødet.\nSå stod der systemfejl. 😕")
    await expect(pop_up.get_by_text("53 af 500 tegn")).to_be_visible()
    await picture(page, "jobnet-report")
    await send.click()
    await expect(pop_up).to_contain_text("Du har nu indmeldt en fejl")
    await broker.sandbox.booking_system_of("90001").up()

    inbox = broker.sandbox.suppliers["fyrtaarn"].inbox
    await poll(
        lambda: [r for r in inbox() if "😕" in r["fejltekst"]], timeout=40, what="the citizen's report"
    )
    await page.goto(f"{jobnet}/sandbox/fyrtaarn/inbox")
    letter = page.locator("article", has_text="Jeg trykkede på Book mødet.")
    await expect(letter.locator('[data-field="fejlkode"]')).to_contain_text("4")
    await expect(letter.locator('[data-field="fejlOphav"]')).to_have_text("Jobnet (32)")
    await expect(letter.locator('[data-field="moedetilbudId"]')).to_have_text(re.compile(r"^[0-9a-f-]{36}$"))
    await expect(letter.locator('[data-field="indkaldelseId"]')).to_have_text("none")
    await expect(letter.locator('[data-field="fejlTidspunkt"]')).to_have_text(re.compile(r"\+0[12]:00$"))
    await picture(page, "sandbox-inbox")
    await letter.get_by_role("button", name="Show the CPR number").click()
    await expect(page.locator("[data-cpr]", has_text=re.compile(r"^\d{6}-\d{4}$"))).to_have_count(1)


@pytest.mark.parametrize(
    ("text", "counted"),
    [("😀" * 500, 500), ("e\u0301" * 500, 500), ("a\n" * 250, 500), ("a" * 501, 501), (" " * 7, 7), ("", 0)],
    ids=["code points", "composed first", "line breaks", "too long", "blank", "empty"],
)
async def test_text_is_counted_as_the_broker_counts_it(
    page: Page, jobnet: str, text: str, counted: int
) -> None:
    await page.goto(f"{jobnet}/borger/malthe/book")  # is offered nothing: failure 3, which may be reported
    await page.get_by_role("button", name="Indmeld booking-fejl").click()
    pop_up = page.get_by_role("dialog")
    await pop_up.get_by_label("Fejltekst").fill(text)
    await expect(pop_up.get_by_text(f"{counted} af 500 tegn")).to_be_visible()
    send = pop_up.get_by_role("button", name="Indmeld", exact=True)
    if counted > 500:
        await expect(pop_up.get_by_role("alert")).to_have_text(
            "Teksten er 1 tegn for lang. Der er plads til 500 tegn."
        )
        await expect(send).to_be_disabled()
    elif not text.strip():
        await expect(send).to_be_disabled()
    else:
        await send.click()
        await expect(pop_up).to_contain_text("Du har nu indmeldt en fejl")


async def test_without_javascript_the_same_can_be_done(new_page: NewPage, jobnet: str) -> None:
    page = await new_page(java_script_enabled=False)
    await page.goto(f"{jobnet}/borger/malthe/book")
    await page.get_by_role("button", name="Indmeld booking-fejl").click()
    await page.get_by_label("Fejltekst").fill("x" * 501)
    await page.get_by_role("button", name="Indmeld", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("1 tegn for lang")
    await page.get_by_label("Fejltekst").fill("Der var ingen møder at vælge.")
    await page.get_by_role("button", name="Indmeld", exact=True).click()
    await expect(page.get_by_text("Du har nu indmeldt en fejl")).to_be_visible()


async def test_an_uncertain_booking_tells_its_end_by_itself(
    page: Page, new_page: NewPage, jobnet: str, broker: RunningBroker
) -> None:
    """It was booked, the line was cut before the booking system said so, and then nobody could be asked."""
    await set_switch(page, jobnet, "tjoern", "Lost after booking")
    await choose_first_time(page, jobnet, "oskar")
    await page.get_by_role("button", name="Book mødet").click()
    await expect(page.get_by_role("heading", name="Vi ved endnu ikke, om det lykkedes")).to_be_visible()
    await picture(page, "jobnet-uncertain")
    assert await barriers(page) == []
    assert len(broker.sandbox.booking_systems["tjoern"].book.meetings) == 1
    other = await new_page()
    await other.goto(f"{jobnet}/borger/oskar")
    await expect(other.get_by_role("heading", name="Vi mangler svar på en booking")).to_be_visible()

    await set_switch(other, jobnet, "tjoern", "Well")
    await expect(page.get_by_role("heading", name="Dit møde er booket")).to_be_visible(timeout=60_000)
    assert len(broker.sandbox.booking_systems["tjoern"].book.meetings) == 1


async def test_a_cut_line_is_looked_up_within_the_deadline(
    page: Page, jobnet: str, broker: RunningBroker
) -> None:
    await set_switch(page, jobnet, "tjoern", "Cut after booking")
    before = len(broker.sandbox.booking_systems["tjoern"].book.meetings)
    await choose_first_time(page, jobnet, "oskar")
    await page.get_by_role("button", name="Book mødet").click()
    await expect(page.get_by_role("heading", name="Dit møde er booket")).to_be_visible()
    assert len(broker.sandbox.booking_systems["tjoern"].book.meetings) == before + 1
    await set_switch(page, jobnet, "tjoern", "Well")


async def test_a_supplier_that_is_down_gets_its_reports_when_it_is_back(
    page: Page, jobnet: str, broker: RunningBroker
) -> None:
    await set_switch(page, jobnet, "tjoern", "Down")
    await set_switch(page, jobnet, "bro", "Down")
    await page.goto(f"{jobnet}/borger/oskar/book")
    await page.get_by_role("link", name="Mødetilbud 1").click()
    await page.get_by_role("button", name="Indmeld booking-fejl").click()
    await page.get_by_label("Fejltekst").fill("Siden stod stille.")
    await page.get_by_role("button", name="Indmeld", exact=True).click()
    await expect(page.get_by_role("dialog")).to_contain_text("Du har nu indmeldt en fejl")

    async def lane() -> str:
        return str((await broker.rows("SELECT state FROM lanes WHERE supplier = 'bro'"))[0][0])

    await poll(lambda: _is(lane, "parked", "probing"), timeout=40, what="a parked lane")
    await set_switch(page, jobnet, "bro", "Well")
    await page.goto(f"{jobnet}/sandbox/bro/inbox")
    await expect(page.get_by_text("Siden stod stille.")).to_be_visible(timeout=60_000)  # it renews itself
    await set_switch(page, jobnet, "tjoern", "Well")
    assert await poll(lambda: _is(lane, "open"), timeout=40, what="an open lane")


async def _is(state: Callable[[], Awaitable[str]], *wanted: str) -> bool:
    return await state() in wanted


async def test_everything_can_be_done_with_the_keyboard(page: Page, jobnet: str) -> None:
    await page.goto(f"{jobnet}/borger/malthe/book")

    async def tab_to(name: str) -> None:
        for _ in range(30):
            await page.keyboard.press("Tab")
            focused = await page.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"
                " || document.activeElement.id"
            )
            if focused == name:
                return
        raise AssertionError(f"Tab never reaches {name}")

    await tab_to("Indmeld booking-fejl")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).not_to_be_visible()
    await page.keyboard.press("Enter")  # the focus is back where it was
    await tab_to("fejltekst")
    await page.keyboard.type("Jeg fandt ingen tider.")
    await tab_to("Indmeld")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_contain_text("Du har nu indmeldt en fejl")
    assert await barriers(page) == []


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", PHONE), ("dark", PHONE), ("light", DESK)], ids=["phone", "dark", "desk"]
)
async def test_pages_fit_and_keep_nobody_out(
    new_page: NewPage, jobnet: str, scheme: str, width: dict[str, int]
) -> None:
    page = await new_page(viewport=width, color_scheme=scheme)
    for path in (
        "/",
        "/borger/asta",
        "/borger/ellen/book",
        "/borger/viggo/book",
        "/borger/malthe/book",
        "/sandbox",
        "/sandbox/fyrtaarn/inbox",
        "/sandbox/moelle/inbox",
    ):
        await page.goto(jobnet + path)
        assert (await barriers(page), await overflow(page)) == ([], []), path
    await page.goto(f"{jobnet}/borger/malthe/book")
    await page.get_by_role("button", name="Indmeld booking-fejl").click()
    await page.get_by_label("Fejltekst").fill("x" * 501)
    assert (await barriers(page), await overflow(page)) == ([], []), "pop-up"
    if (scheme, width) == ("dark", PHONE):
        await picture(page, "jobnet-phone")
    await page.goto(f"{jobnet}/borger/ellen/book")
    await page.get_by_role("link", name="Mødetilbud 1").click()
    assert (await barriers(page), await overflow(page)) == ([], []), "times"


async def test_nothing_comes_from_elsewhere_and_no_number_is_in_a_page(page: Page, jobnet: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"{jobnet}/borger/ellen")
    body = await page.content()
    assert not re.search(r"\d{6}-?\d{4}", re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "", body))
    assert all(url.startswith(jobnet) for url in asked)
    assert not any(re.search(r"\d{10}", re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "", url)) for url in asked)
