"""The Jobnet page over HTTP without a browser: the requests it sends, the forms it refuses, the data it masks."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from sandbox.books import citizen_token
from sandbox.desk_client import DeskClient
from sandbox.jobnet.citizens import CITIZENS
from sandbox.jobnet.danish import row, when
from sandbox.jobnet.inboxes import cpr_of, refused_calls, shown_reports
from sandbox.jobnet.report_pages import normalized, problem_of
from sandbox.jobnet.request_store import RequestStore, Unknown
from sandbox.jobnet.sandbox_client import SandboxClient
from sandbox.jobnet.switches import SWITCHES, switch_named, which_is_on
from sandbox.jobnet.web import application
from sandbox.scripting import step_from
from sandbox.servers import Sandbox
from schemas.requests import CitizenReport
from schemas.wire import InvalidMessage

FAILED = {"status": "failed", "fejlkode": 4, "text": "Systemfejl.", "fejltekst": "…", "canReport": True}
RECEIPT = {"status": "done", "result": {"reportId": "r", "text": "Tak."}}
Client = TestClient[Any, Any]


class Broker:
    """A stand-in for the broker: answers by type, and keeps the requests."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {"report.citizen.v1": RECEIPT}
        self.sent: list[tuple[str, Mapping[str, Any]]] = []

    async def ask(self, type_: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.sent.append((type_, body))
        return self.answers.get(type_, FAILED)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
async def client(sandbox: Sandbox, http: aiohttp.ClientSession, broker: Broker) -> AsyncIterator[Client]:
    sandbox_client = await SandboxClient.open(DeskClient(sandbox.desk_url, http))
    async with TestClient(TestServer(application(RequestStore(broker), sandbox_client))) as client:
        yield client


async def text_of(client: Client, path: str) -> str:
    async with client.get(path) as answer:
        assert answer.status == 200
        return await answer.text()


def hidden(page: str) -> str:
    return re.findall(r'name="requestId" value="([0-9a-f-]{36})"', page)[-1]


async def failed_request(client: Client, broker: Broker) -> str:
    await text_of(client, "/borger/asta/book")
    return str(broker.sent[-1][1]["requestId"])


async def test_every_page_has_security_headers_and_is_not_cached(client: Client) -> None:
    for path, status in (("/", 200), ("/sandbox", 200), ("/borger/nobody", 404), ("/nothing", 404)):
        async with client.get(path) as answer:
            assert answer.status == status
            assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil.example"}],
)
async def test_a_form_from_elsewhere_is_refused(
    client: Client, sandbox: Sandbox, headers: dict[str, str]
) -> None:
    async with client.post("/sandbox/birk", data={"switch": "down"}, headers=headers) as answer:
        assert answer.status == 403
    assert sandbox.systems["birk"].is_up


async def test_a_form_sent_twice_is_one_request(client: Client, broker: Broker) -> None:
    times = {"status": "done", "result": {"tider": [TIME]}}
    broker.answers |= {"query.times.v1": times}
    form = {"requestId": hidden(await text_of(client, "/borger/asta/book/o-1"))}
    form["tid"] = f"{TIME['starttidspunkt']}|telefonisk|k-1"
    for _ in range(2):
        async with client.post("/borger/asta/book/o-1", data=form) as answer:
            assert "Systemfejl." in await answer.text()
    sent = [dict(body) for type_, body in broker.sent if type_ == "booking.book.v1"]
    assert [body["requestId"] for body in sent] == [form["requestId"]] * 2
    assert (sent[0]["moedetilbudId"], sent[0]["sagsbehandlerId"]) == ("o-1", "k-1")


async def test_ordinary_booking_chooses_a_form_and_reads_on_and_straksbooking_does_not(
    client: Client, broker: Broker
) -> None:
    times = {"status": "done", "result": {"tider": [TIME], "naesteSide": "abc"}}
    broker.answers |= {"query.times.v1": times}
    page = await text_of(client, "/borger/asta/book/o-1?moedeform=telefonisk")
    assert 'href="?moedeform=telefonisk&amp;side=abc">Vis senere tider' in page
    await text_of(client, "/borger/asta/book/o-1?moedeform=telefonisk&side=abc")
    assert "Mødeform:" not in await text_of(client, "/borger/asta/straks/o-1?moedeform=telefonisk&side=abc")
    asked = [
        (body.get("moedeform"), body.get("side")) for type_, body in broker.sent if type_ == "query.times.v1"
    ]
    assert asked == [("telefonisk", None), ("telefonisk", "abc"), (None, None)]


async def test_a_query_is_repeated_by_its_own_page_and_a_booking_by_the_page_of_its_answer(
    client: Client, broker: Broker
) -> None:
    silence = {"status": "no-answer", "text": "Spørg igen om lidt."}
    broker.answers |= {"query.offers.v1": silence, "booking.accept.v1": silence}
    page = await text_of(client, "/borger/asta/book")
    assert 'href="/borger/asta/book">Prøv igen</a>' in page
    assert not {"data-live", "Spørg igen"} & set(re.findall(r"data-live|Spørg igen", page))
    form = {"requestId": "6f1c2a34-9b0d-4e57-8a61-0c2d3e4f5a6b"}
    async with client.post("/borger/asta/moede/m-1/accept", data=form) as answer:
        page = await answer.text()
    assert "data-live" in page
    assert "Prøv igen</a>" not in page
    broker.answers["booking.accept.v1"] = {"status": "refused", "reason": "unknown-booking", "text": "Væk."}
    async with client.post(f"/borger/asta/svar/{form['requestId']}") as answer:
        assert "Væk." in await answer.text()
    assert [body["requestId"] for type_, body in broker.sent if type_ == "booking.accept.v1"] == [
        form["requestId"]
    ] * 2


@pytest.mark.parametrize("form", [{}, {"requestId": "x", "tid": "a|b|c"}, {"tid": "2026"}])
async def test_half_a_form_is_refused(client: Client, broker: Broker, form: dict[str, str]) -> None:
    async with client.post("/borger/asta/book/o-1", data=form) as answer:
        assert answer.status == 400
    assert broker.sent == []


async def test_a_report_names_the_failed_request(client: Client, broker: Broker) -> None:
    failed = await failed_request(client, broker)
    page = await text_of(client, f"/borger/asta/fejl/{failed}")
    form = {"requestId": hidden(page), "fejltekst": "Linje 1\r\nLinje 2\t😕"}
    async with client.post(f"/borger/asta/fejl/{failed}", data=form) as answer:
        assert "Tak." in await answer.text()
    type_, body = broker.sent[-1]
    assert type_ == "report.citizen.v1"
    assert body["fejltekst"] == "Linje 1\nLinje 2 😕"
    assert (body["failedRequestId"], body["fejlkode"], body["straksbooking"]) == (failed, 4, False)
    assert body["requestId"] == form["requestId"]


async def test_a_report_that_cannot_be_sent_keeps_its_text(client: Client, broker: Broker) -> None:
    failed = await failed_request(client, broker)
    form = {"requestId": hidden(await text_of(client, f"/borger/asta/fejl/{failed}"))}
    for text, problem in (("", "Skriv, hvad du oplevede"), ("ø" * 502, "2 tegn for lang")):
        async with client.post(f"/borger/asta/fejl/{failed}", data={**form, "fejltekst": text}) as answer:
            page = await answer.text()
        assert problem in page
        assert text in page
        assert hidden(page) == form["requestId"]
    assert broker.sent[-1][0] == "query.offers.v1"
    broker.answers["report.citizen.v1"] = {"status": "refused", "reason": "conflict", "text": "Den er her."}
    async with client.post(f"/borger/asta/fejl/{failed}", data={**form, "fejltekst": "<b>"}) as answer:
        page = await answer.text()
    assert "Den er her." in page
    assert "&lt;b&gt;" in page


@pytest.mark.parametrize(
    "text", ["x", "😀" * 500, "e\u0301" * 500, "a\r\n" * 250, "x" * 501, " \n ", "a\tb", "x\x00"]
)
def test_a_text_is_checked_as_the_broker_checks_it(text: str) -> None:
    sent = normalized(text)
    fields = {
        "requestId": "6f1c2a34-9b0d-4e57-8a61-0c2d3e4f5a6b",
        "sentAt": "2026-11-24T10:00:00+01:00",
        "cpr": CITIZENS["asta"].cpr,
        "jobcenterkode": "90001",
        "fejlkode": 4,
        "fejltekst": sent,
    }
    try:
        is_accepted = CitizenReport.from_fields(fields).error_text == sent
    except InvalidMessage:
        is_accepted = False
    assert is_accepted == (problem_of(sent) is None)


async def test_a_proposed_meeting_is_in_the_booking_system(client: Client, sandbox: Sandbox) -> None:
    for _ in range(2):
        assert "Jobcentret har foreslået dette møde" in await text_of(client, "/borger/liv")
    meetings = sandbox.booking_system_of("90007").book.meetings.values()
    assert [(m.citizen, m.accepted) for m in meetings] == [(citizen_token(CITIZENS["liv"].cpr), False)]


async def test_switches_are_set_and_shown(client: Client, sandbox: Sandbox) -> None:
    lind = sandbox.systems["lind"]
    for key, up, steps in (("slow", True, 1), ("down", False, 0), ("cut", True, 1), ("well", True, 0)):
        async with client.post("/sandbox/lind", data={"switch": key}) as answer:
            page = await answer.text()
        assert re.search(rf'id="lind".*?value="{key}"[^>]*aria-pressed="true"', page, re.DOTALL)
        assert (lind.is_up, len(lind.scripts.to_json())) == (up, steps)
    for path, key in (("lind", "busy"), ("lind", "nothing"), ("nobody", "slow")):
        async with client.post(f"/sandbox/{path}", data={"switch": key}) as answer:
            assert answer.status == 404


def test_every_switch_has_valid_steps() -> None:
    for switch in SWITCHES:
        steps = [step_from(raw) for raw in switch.script]
        assert which_is_on(switch.key != "down", [vars(step) for step in steps]) == switch.key
    assert which_is_on(True, [{"label": "a test's"}]) is None
    assert switch_named("supplier", "busy").name == "Busy"
    with pytest.raises(Unknown):
        switch_named("planner", "busy")


async def test_an_inbox_shows_everything_but_the_number(client: Client, sandbox: Sandbox) -> None:
    report = {
        "fejlkode": 4,
        "fejltekst": "<i>Ord</i>",
        "fejlOphav": {"id": 32, "navn": "Jobnet"},
        "fejlTidspunkt": "2026-11-24T10:00:00+01:00",
        "moedetilbudId": "6f1c2a34-9b0d-4e57-8a61-0c2d3e4f5a6b",
    }
    cpr = CITIZENS["asta"].cpr
    sent = {"x-civilregistrationIdentifier": cpr, "x-requestId": "1", "x-activeOrganisation": "90001"}
    url = sandbox.suppliers["fyrtaarn"].base_url + "/v1/BorgerBooking/Fejlmelding"
    async with aiohttp.ClientSession() as http, http.post(url, json=report, headers=sent) as answer:
        assert answer.status == 204
    page = await text_of(client, "/sandbox/fyrtaarn/inbox")
    assert "&lt;i&gt;Ord&lt;/i&gt;" in page
    assert all(word in page for word in ("moedetilbudId", "Jobnet (32)", "2026-11-24T10:00:00+01:00"))
    number = f"{cpr[:6]}-{cpr[6:]}"
    assert not {cpr, number} & set(re.findall(r"\d{6}-?\d{4}", page))
    identity = re.findall(r'name="identity" value="([^"]+)"', page)[0]
    async with client.post("/sandbox/fyrtaarn/inbox", data={"identity": identity}) as answer:
        assert number in await answer.text()
        assert answer.headers["Cache-Control"] == "no-store"
    assert number not in await text_of(client, "/sandbox/fyrtaarn/inbox")


def test_only_invented_citizens_are_recognised() -> None:
    assert cpr_of("c-0123456789abcdef") is None
    assert cpr_of(citizen_token("0101364001")) is None


def test_an_inbox_shows_the_newest_first_and_not_too_many() -> None:
    inbox = [_report(minute) for minute in range(60)]
    shown = shown_reports(inbox, "webhook")
    assert (len(shown), shown[0].identity, shown[0].signature) == (50, "r-59", "verified")
    assert shown[0].kind == "written by the citizen"
    calls = [{"at": TIME["starttidspunkt"], "status": s, "problems": []} for s in (204, None, 500)]
    assert [call["status"] for call in refused_calls(calls)] == [500, "cut"]


def test_times_are_shown_in_danish() -> None:
    assert when("2022-11-19T12:00:00+00:00") == "19. nov. 2022, 13:00"
    assert row(TIME) == "19. nov. 2022, 13:00 · Christian · Telefonisk"


TIME = {
    "starttidspunkt": "2022-11-19T13:00:00+01:00",
    "sluttidspunkt": "2022-11-19T13:30:00+01:00",
    "sagsbehandler": {"id": "k-1", "navn": "Christian"},
    "moedeform": "telefonisk",
}


def _report(minute: int) -> dict[str, Any]:
    return {
        "identity": f"r-{minute}",
        "fejlkode": 2,
        "fejltekst": "…",
        "fejlOphav": {"id": 32, "navn": "Jobnet"},
        "fejlTidspunkt": TIME["starttidspunkt"],
        "moedetilbudId": None,
        "indkaldelseId": "i",
        "jobcenterkode": "90004",
        "kind": "citizen",
        "citizen": "c",
        "times": 1,
        "arrivals": [{"at": f"2026-11-24T10:{minute:02}:00+01:00"}],
    }
