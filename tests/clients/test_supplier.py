"""Deliveries to a real server: the sent request in both formats, and the action for each answer."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from broker.clients import SupplierReceipt, Systems
from broker.clients.http import HttpSystem
from broker.clients.supplier import Supplier
from broker.errors import AtCapacity, Misconfigured
from broker.lanes.decision import DeadLetter, Decision, Delivered, Hold, Retry, RetryState
from broker.lanes.events import DestinationAnswered, DestinationFailed, SetupWrong, WaitRequested
from broker.lanes.lane import Lane, after, tells_a_person
from broker.lanes.retry_policy import judge, x_request_id
from config.directory import Directory, Jobcenter
from config.report_sections import ReportSettings
from config.settings import build
from config.suppliers import Supplier as SupplierConfig
from schemas.codes import ErrorCode, ReportKind
from schemas.failure_reports import Report
from schemas.personal import Cpr
from tests.clients.support import (
    CPR,
    INVITATION,
    OFFER,
    Action,
    End,
    RawServer,
    fault,
    http,
    limits,
)
from tests.support import poll

pytestmark = pytest.mark.integration

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REPORT_ID = UUID("0f0f0f0f-0000-4000-8000-00000000000a")
X_REQUEST_ID = x_request_id(REPORT_ID, 1)
REPORT = Report(
    report_id=REPORT_ID,
    kind=ReportKind.AUTOMATIC,
    cpr=Cpr(CPR),
    offer_id=OFFER,
    invitation_id=INVITATION,
    error_code=ErrorCode.OTHER,
    error_text="Bookingsystemet svarede ikke på 'opret' inden for 8 sekunder.",
    occurred_at=datetime(2031, 3, 3, 8, 0, tzinfo=UTC),
    jobcenter_code="08510",
    supplier="nordlys",
    traceparent=PARENT,
)
SETTINGS = build({"rabbitmq": {"url": "amqp://x:x@127.0.0.1/"}})
OLD, NEW = (f"whsec_{base64.b64encode(bytes([n]) * 32).decode()}" for n in (1, 2))
NO_CONTENT, OK_JSON = http(204), http(200, {"ok": True})
HTML = "<!doctype html><title>Log ind</title>"


RULES = ReportSettings(retry_delays_seconds=(10, 60))


def config(url: str, form: str = "contract", **more: Any) -> SupplierConfig:
    return SupplierConfig.model_validate(
        {"name": "Nordlys A/S", "base_url": url, "allow_http": url.startswith("http:"), "format": form} | more
    )


def supplier(configured: SupplierConfig, **changes: Any) -> Supplier:
    return Supplier("nordlys", configured, HttpSystem("nordlys", configured, limits(**changes)))


@pytest.fixture(autouse=True)
def _live_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLD_SECRET", OLD)
    monkeypatch.setenv("NEW_SECRET", NEW)


WEBHOOK: dict[str, Any] = {"form": "webhook", "webhook_secret_envs": ["OLD_SECRET", "NEW_SECRET"]}


async def attempt(to: Supplier, *, unanswered: bool = False, number: int = 1) -> SupplierReceipt:
    return await to.deliver(REPORT, x_request_id=X_REQUEST_ID, attempt=number, unanswered=unanswered)


async def judged(
    action: Action, *, overrides: Mapping[str, str] | None = None, unanswered: bool = False, **more: Any
) -> Decision:
    """One attempt against a server that does `action`, through the client and the policy."""
    tries = RetryState(unanswered=unanswered)
    async with RawServer(action) as server:
        to = supplier(config(server.url, status_means=overrides or {}, **more))
        error, receipt = None, None
        try:
            receipt = await attempt(to, unanswered=unanswered)
        except Exception as met:
            error = met
        await close(to)
        assert len(server.requests) == 1, "one attempt is one call"
    duplicate = receipt is SupplierReceipt.DUPLICATE
    return judge(error, tries, RULES, to.config.status_means, duplicate=duplicate, chance=lambda: 0.0)


async def close(to: Supplier) -> None:
    assert to._system is not None
    await to._system.close()


async def test_the_contract_gets_all_seven_fields_and_the_cpr_number_only_in_its_header() -> None:
    async with RawServer(NO_CONTENT) as server:
        to = supplier(config(server.url + "/base"))
        assert await attempt(to) is SupplierReceipt.DELIVERED
        await close(to)
    (sent,) = server.requests
    assert (sent.method, sent.target) == ("POST", "/base/v1/BorgerBooking/Fejlmelding")
    assert json.loads(sent.body) == {
        "moedetilbudId": str(OFFER),
        "indkaldelseId": str(INVITATION),
        "fejlkode": 4,
        "fejltekst": REPORT.error_text,
        "fejlOphav": {"id": 32, "navn": "Jobnet"},
        "fejlTidspunkt": "2031-03-03T09:00:00+01:00",
    }
    wanted = {
        "x-civilregistrationidentifier": CPR,
        "x-requestid": X_REQUEST_ID,
        "x-activeorganisation": "08510",
        "traceparent": PARENT,
        "content-type": "application/json",
    }
    assert wanted.items() <= sent.headers.items()
    assert CPR not in sent.target
    assert CPR.encode() not in sent.body


async def test_the_webhook_gets_the_cpr_number_only_in_its_body() -> None:
    async with RawServer(OK_JSON) as server:
        to = supplier(config(server.url + "/hook/17", **WEBHOOK))
        assert await attempt(to, number=3) is SupplierReceipt.DELIVERED
        await close(to)
    (sent,) = server.requests
    body = json.loads(sent.body)
    assert (sent.method, sent.target) == ("POST", "/hook/17")
    assert (body["cpr"], body["jobcenterkode"], body["antal"]) == (CPR, "08510", 1)
    assert {"fejlkode", "fejltekst", "fejlOphav", "fejlTidspunkt", "moedetilbudId", "indkaldelseId"} <= set(
        body
    )
    assert CPR not in str(sent.headers)
    assert (sent.headers["x-requestid"], sent.headers["x-attempt"]) == (X_REQUEST_ID, "3")
    assert sent.headers["traceparent"] == PARENT
    assert sent.headers["content-type"] == "application/json"


async def test_the_librarys_own_verifier_accepts_the_webhook_with_either_live_secret() -> None:
    async with RawServer(default=OK_JSON) as server:
        to = supplier(config(server.url, **WEBHOOK))
        await attempt(to)
        await attempt(to, number=2)
        await close(to)
    for sent in server.requests:
        for secret in (OLD, NEW):
            read = Webhook(secret).verify(sent.body, sent.headers)
            assert read["reportId"] == sent.headers["webhook-id"] == str(REPORT_ID)
        stranger = Webhook(base64.b64encode(b"3" * 32).decode())
        forged = sent.body.replace(b"08510", b"08511")
        for verifier, body in ((stranger, sent.body), (Webhook(OLD), forged)):
            with pytest.raises(WebhookVerificationError):
                verifier.verify(body, sent.headers)


async def test_a_secret_is_read_for_each_attempt_so_that_it_can_be_changed_while_we_run(
    tmp_path: Path,
) -> None:
    file = tmp_path / "secret"
    file.write_text(OLD)
    async with RawServer(default=OK_JSON) as server:
        to = supplier(config(server.url, "webhook", webhook_secret_files=[str(file)]))
        await attempt(to)
        file.write_text(NEW)
        await attempt(to)
        await close(to)
    for sent, secret in zip(server.requests, (OLD, NEW), strict=True):
        Webhook(secret).verify(sent.body, sent.headers)


async def test_without_a_readable_secret_nothing_is_sent_and_the_report_is_kept(tmp_path: Path) -> None:
    async with RawServer(default=OK_JSON) as server:
        to = supplier(config(server.url, "webhook", webhook_secret_files=[str(tmp_path / "none")]))
        with pytest.raises(Misconfigured, match="webhook-secret") as caught:
            await attempt(to)
        await close(to)
    got = judge(caught.value, RetryState(unanswered=True), RULES, {})
    assert (got.verdict, got.unanswered) == (Hold("misconfigured"), True)
    assert server.requests == []


async def test_a_supplier_without_an_address_keeps_its_reports() -> None:
    with pytest.raises(Misconfigured, match="no-address"):
        await attempt(Supplier("nordlys", config(""), None))


LATER, DUPLICATE = Retry(10, True, "contract-broken"), Delivered(duplicate=True)
UNAVAILABLE = Retry(10, True, "unavailable")
CONTRACT: dict[str, tuple[Action, object, object]] = {
    "204 from the right place": (NO_CONTENT, Delivered(), DestinationAnswered()),
    "302 to a login page": (
        http(302, "", "Location: /login"),
        LATER,
        DestinationFailed("redirect"),
    ),
    "301": (http(301, "", "Location: /x"), LATER, DestinationFailed("redirect")),
    "200 with HTML": (http(200, HTML, kind="text/html"), LATER, DestinationFailed("html", otherwise=True)),
    "200 empty": (http(200), LATER, DestinationFailed("status 200", otherwise=True)),
    "201 empty": (http(201, kind="text/html"), LATER, DestinationFailed("status 201", otherwise=True)),
    "202": (http(202), LATER, DestinationFailed("status 202", otherwise=True)),
    "oversized 200": (http(200, "x" * 30_000), LATER, DestinationFailed("too-large", otherwise=True)),
    "204 of Flask and Django": (
        http(204, b"", kind="text/html; charset=utf-8"),
        Delivered(),
        DestinationAnswered(),
    ),
    "204 that promises a body": (
        b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\n",
        Delivered(),
        DestinationAnswered(),
    ),
    "204 that promises an encoded body": (
        b"HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\nContent-Encoding: br\r\n\r\n",
        Delivered(),
        DestinationAnswered(),
    ),
    "204 and then the end of a body of no chunks": (
        b"HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Delivered(),
        DestinationAnswered(),
    ),
    "204 and then a body": (
        b"HTTP/1.1 204 X\r\nContent-Length: 2\r\n\r\n{}",
        Delivered(),
        DestinationAnswered(),
    ),
    "422 of Django": (http(422, b"", kind="text/html"), DeadLetter("rejected"), DestinationAnswered()),
    "no HTTP": (b"SSH-2.0-Hello\r\n\r\n", LATER, DestinationFailed("not-http")),
    "422": (http(422), DeadLetter("rejected"), DestinationAnswered()),
    "422 with a fault": (fault(422, "ugyldig-besked"), DeadLetter("rejected-message"), DestinationAnswered()),
    "404 with a fault": (
        fault(404, "ukendt-moedetilbud"),
        DeadLetter("unknown-offer"),
        DestinationAnswered(),
    ),
    "bare 404": (http(404), Hold("misconfigured"), SetupWrong("status 404")),
    "404 with HTML": (http(404, HTML, kind="text/html"), Hold("misconfigured"), SetupWrong("status 404")),
    "401": (http(401), Hold("misconfigured"), SetupWrong("status 401")),
    "already received": (fault(409, "allerede-modtaget"), DUPLICATE, DestinationAnswered()),
    "412 and no lost try": (http(412), DeadLetter("rejected"), DestinationAnswered()),
    "reset": (End.RESET, UNAVAILABLE, DestinationFailed("reset")),
    "closed": (End.CLOSE, UNAVAILABLE, DestinationFailed("reset")),
    "hang": (End.HANG, UNAVAILABLE, DestinationFailed("timeout")),
    "500": (http(500), UNAVAILABLE, DestinationFailed("status 500")),
    "503": (http(503), UNAVAILABLE, DestinationFailed("status 503")),
    "429 with Retry-After": (
        http(429, "", "Retry-After: 90"),
        Retry(90, False, "unavailable"),
        WaitRequested(90, "status 429"),
    ),
}


@pytest.mark.parametrize("answer", CONTRACT)
async def test_each_answer_becomes_its_action_and_lane_event(answer: str) -> None:
    action, verdict, event = CONTRACT[answer]
    got = await judged(action)
    assert (got.verdict, got.lane_event) == (verdict, event)
    kept = {"reset", "closed", "hang", "200 with HTML", "200 empty", "201 empty", "202", "oversized 200"}
    assert got.unanswered is (answer in kept)


@pytest.mark.parametrize("name", ["302 to a login page", "200 with HTML", "bare 404"])
async def test_these_answers_do_not_deliver_a_webhook_either(name: str) -> None:
    action, verdict, event = CONTRACT[name]
    got = await judged(action, **WEBHOOK)
    assert (got.verdict, got.lane_event) == (verdict, event)


TEXT_HTML = "text/html; charset=utf-8"


@pytest.mark.parametrize(
    "answer",
    [
        http(200),
        OK_JSON,
        http(200, "ok", kind="text/plain"),
        http(201, {"id": 1}),
        NO_CONTENT,
        http(202),
        http(202, {"queued": True}),
        http(206),
        http(226, "x"),
        http(299, "x"),
        http(200, "", kind=TEXT_HTML),
        http(200, "ok", kind=TEXT_HTML),
        http(202, '{"queued": true}', kind=TEXT_HTML),
        http(204, b"", kind=TEXT_HTML),
        http(200, "x" * 30_000),
        http(200, b"not gzip", "Content-Encoding: br"),
        http(200, "<ok/>", kind="application/xml"),
    ],
)
async def test_a_webhook_is_delivered_by_any_2xx_with_any_body_but_a_web_page(answer: bytes) -> None:
    assert (await judged(answer, **WEBHOOK)).verdict == Delivered()


@pytest.mark.parametrize(
    "answer",
    [
        http(200, HTML, kind=TEXT_HTML),
        http(202, HTML),
        http(200, "\ufeff\n<!-- a proxy -->\n<?xml version='1.0'?><HTML><p>log in", kind="text/plain"),
        http(200, "<div>log in</div>", kind=TEXT_HTML),
        http(200, "<html>".encode("utf-16"), kind=TEXT_HTML),
        http(200, f"{HTML}{'x' * 30_000}", kind=TEXT_HTML),
    ],
)
async def test_a_web_page_never_delivers_a_webhook(answer: bytes) -> None:
    got = await judged(answer, **WEBHOOK)
    assert (got.verdict, got.unanswered) == (LATER, True)
    assert got.lane_event == DestinationFailed("html", otherwise=True)


async def test_a_supplier_may_say_that_a_2xx_of_its_webhook_only_promises() -> None:
    got = await judged(http(202), overrides={"202": "retry"}, **WEBHOOK)
    assert (got.verdict, got.lane_event) == (LATER, DestinationFailed("status 202", otherwise=True))
    assert (await judged(http(202), overrides={"202": "dead"}, **WEBHOOK)).verdict == DeadLetter(
        "contract-broken"
    )
    assert (await judged(http(200), overrides={"202": "dead"}, **WEBHOOK)).verdict == Delivered()


@pytest.mark.parametrize("asked", ["9999999999", "9" * 30, "soon", "Fri, 31 Dec 9999 23:59:59 GMT"])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_retry_after_that_is_longer_or_odder_than_expected_waits_a_day_and_a_person_is_told(
    status: int, asked: str
) -> None:
    got = await judged(http(status, "", f"Retry-After: {asked}"))
    assert got.verdict == Retry(86_400, False, "unavailable")
    event = got.lane_event
    assert isinstance(event, WaitRequested)
    now = datetime.now(UTC)
    before = Lane("nordlys", changed_at=now)
    lane = after(before, event, now, SETTINGS.reports)
    assert lane.parked_until == now + timedelta(days=1)
    told = tells_a_person(before, lane)
    assert told is not None
    assert told.endswith("it gets 24 h")
    assert "inf" not in told


async def test_a_retry_after_date_is_read_as_well() -> None:
    at = datetime.now(UTC) + timedelta(seconds=1000)
    got = await judged(http(503, "", f"Retry-After: {format_datetime(at, usegmt=True)}"))
    assert isinstance(got.verdict, Retry)
    assert not got.verdict.counted
    assert 900 < got.verdict.pause_s <= 1000


async def test_a_long_retry_after_does_not_pause_the_process() -> None:
    # The lane, which all processes share, keeps the pause: its probe must not be rejected by a pause in the process.
    async with RawServer(http(503, "", "Retry-After: 3600"), NO_CONTENT) as server:
        to = supplier(config(server.url), breaker_failures=1)
        with pytest.raises(Exception, match="status 503"):
            await attempt(to)
        assert await attempt(to) is SupplierReceipt.DELIVERED
        await close(to)


async def test_at_most_in_flight_deliveries_run_at_once_and_the_rest_are_not_sent() -> None:
    async with RawServer(default=End.HANG) as server:
        to = supplier(config(server.url), in_flight=2, waiting=0)
        first = [asyncio.create_task(attempt(to)) for _ in range(2)]
        await poll(lambda: server.at_once == 2, what="both requests")
        with pytest.raises(AtCapacity, match="waiting-list-full") as caught:
            await attempt(to)
        assert not caught.value.call_facts.sent
        await asyncio.gather(*first, return_exceptions=True)
        await close(to)
    assert len(server.requests) == 2


async def test_a_412_after_an_unanswered_try_means_that_it_arrived() -> None:
    for answer in (http(412), fault(412, "allerede-modtaget")):
        got = await judged(answer, unanswered=True)
        assert (got.verdict, got.unanswered) == (DUPLICATE, False)


async def test_an_override_applies_but_never_to_a_web_page_or_a_redirect() -> None:
    retry = await judged(http(422), overrides={"422": "retry"})
    assert (retry.verdict, retry.lane_event) == (Retry(10, True, "rejected"), DestinationAnswered())
    assert (await judged(http(202), overrides={"202": "delivered"}, **WEBHOOK)).verdict == Delivered()
    page = await judged(http(202, HTML, kind="text/html"), overrides={"202": "delivered"}, **WEBHOOK)
    assert page.verdict == LATER


async def test_a_refused_connection_is_no_unanswered_try_and_keeps_an_earlier_one() -> None:
    for before in (False, True):
        to = supplier(config("http://127.0.0.1:9"))
        with pytest.raises(Exception, match="connect-refused") as caught:
            await attempt(to, unanswered=before)
        await close(to)
        error = caught.value
        assert isinstance(error, Exception)
        got = judge(error, RetryState(unanswered=before), RULES, {}, chance=lambda: 0.0)
        assert (got.verdict, got.unanswered) == (UNAVAILABLE, before)


async def test_no_cpr_number_gets_into_a_log_an_error_or_an_attempts_repr(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = http(422, {"type": "about:blank", "detail": f"cpr {CPR} unknown"}, f"X-Echo: {CPR}")
    for form in ({}, WEBHOOK):
        for action in (echo, http(302, "", f"Location: /?cpr={CPR}"), End.RESET, NO_CONTENT):
            got = await judged(action, **form)
            assert CPR not in repr(got)
    assert CPR not in caplog.text


async def test_the_systems_of_a_directory_serve_its_suppliers_and_take_a_reload() -> None:
    async with RawServer(default=NO_CONTENT) as server, RawServer(default=http(422)) as other:
        async with Systems(SETTINGS, directory(server.url)) as systems:
            assert await attempt(systems.supplier("nordlys")) is SupplierReceipt.DELIVERED
            with pytest.raises(Misconfigured, match="no-address"):
                await attempt(systems.supplier("nowhere"))
            kept = systems.supplier("nordlys")
            await systems.replace(directory(other.url))
            with pytest.raises(Exception, match="status 422"):
                await attempt(systems.supplier("nordlys"))
            assert await attempt(kept) is SupplierReceipt.DELIVERED
            with pytest.raises(Misconfigured, match="unknown-system"):
                systems.supplier("gone")
        await poll(lambda: len(server.requests) == 2, what="both requests")


def directory(url: str) -> Directory:
    system = {"base_url": "https://127.0.0.1:1"}
    jobcenter = Jobcenter(name="Nordby", planner="p", booking_system="b", supplier="nordlys")
    return Directory.model_validate(
        {
            "planners": {"p": system},
            "booking_systems": {"b": system},
            "suppliers": {"nordlys": config(url).model_dump(), "nowhere": {"name": "Intet Sted"}},
            "jobcenters": {"08510": jobcenter.model_dump()},
        }
    )
