"""A supplier accepts reports, checks each against its format, and counts the arrivals of each."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from standardwebhooks import Webhook

from sandbox.books import citizen_token
from sandbox.servers import Sandbox
from sandbox.supplier import CONTRACT_PATH, WEBHOOK_PATH, SupplierServer, new_secret
from tests.sandbox.conftest import ANNA, CUT, JOBCENTER
from tests.support import poll

FACTS: dict[str, Any] = {
    "moedetilbudId": "11111111-2222-4333-8444-555555555555",
    "fejlkode": 4,
    "fejltekst": "Der kom ingen tider.\nPrøvede tre gange.",
    "fejlOphav": {"id": 32, "navn": "Jobnet"},
    "fejlTidspunkt": "2030-01-07T09:00:00+01:00",
}


@dataclass
class Sender:
    """Sends failure reports to a supplier as the broker does, in the supplier's format."""

    http: aiohttp.ClientSession
    supplier: SupplierServer
    jobcenter: str
    secrets: list[str] = field(default_factory=list)

    async def contract(self, body: Any = None, **headers: str) -> int:
        sent = {
            "x-civilregistrationIdentifier": ANNA,
            "x-requestId": str(uuid4()),
            "x-activeOrganisation": self.jobcenter,
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._post(CONTRACT_PATH, json.dumps(FACTS if body is None else body), sent)

    async def webhook(
        self, body: Any = None, *, ids: str = "", late: timedelta = timedelta(), **headers: str
    ) -> int:
        whole = self.report() if body is None else body
        text, name = json.dumps(whole), ids or whole["reportId"]
        now = datetime.now(UTC) - late
        signatures = [Webhook(s).sign(name, now, text) for s in self.secrets or self.supplier.secrets]
        sent = {
            "webhook-id": name,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
            "x-requestId": str(uuid4()),
        }
        return await self._post(
            WEBHOOK_PATH, text, sent | {k.replace("_", "-"): v for k, v in headers.items()}
        )

    def report(self, **more: Any) -> dict[str, Any]:
        own = {"reportId": str(uuid4()), "kind": "automatic", "cpr": ANNA, "antal": 1}
        return FACTS | own | {"jobcenterkode": self.jobcenter} | more

    async def _post(self, path: str, text: str, headers: dict[str, str]) -> int:
        url = f"{self.supplier.base_url}{path}"
        sent = {"Content-Type": "application/json"} | headers
        async with self.http.post(url, data=text.encode(), headers=sent, allow_redirects=False) as answer:
            assert answer.status != 204 or await answer.read() == b""
            return answer.status


@pytest.fixture
def contract(sandbox: Sandbox, http: aiohttp.ClientSession) -> Sender:
    return Sender(http, sandbox.supplier_of(JOBCENTER), JOBCENTER)


@pytest.fixture
def webhook(sandbox: Sandbox, http: aiohttp.ClientSession) -> Sender:
    return Sender(http, sandbox.suppliers["moelle"], "90004")


async def test_a_report_by_the_contract_is_in_the_inbox_with_all_fields(contract: Sender) -> None:
    assert await contract.contract(x_requestId="one") == 204
    [report] = contract.supplier.inbox()
    assert {name: report[name] for name in FACTS} == FACTS
    assert report["indkaldelseId"] is None
    assert (report["citizen"], report["jobcenterkode"]) == (citizen_token(ANNA), JOBCENTER)
    assert (report["times"], report["arrivals"][0]["xRequestId"], report["arrivals"][0]["status"]) == (
        1,
        "one",
        204,
    )
    assert ANNA not in str(report)
    assert contract.supplier.breaches == contract.supplier.books()["disagreements"] == []


async def test_a_signed_report_is_in_the_inbox_under_its_own_id(webhook: Sender) -> None:
    whole = webhook.report(kind="citizen", requestId=str(uuid4()), requestType="booking.book.v1", antal=3)
    assert await webhook.webhook(whole) == 204
    [report] = webhook.supplier.inbox()
    assert report["identity"] == report["reportId"] == whole["reportId"]
    assert {n: report[n] for n in ("kind", "requestId", "requestType", "antal")} == {
        n: whole[n] for n in ("kind", "requestId", "requestType", "antal")
    }
    assert webhook.supplier.breaches == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fejlkode": 1}, "fejlkode"),
        ({"fejlkode": "4"}, "fejlkode"),
        ({"fejlkode": True}, "fejlkode"),
        ({"fejltekst": ""}, "fejltekst"),
        ({"fejltekst": "x" * 501}, "fejltekst"),
        ({"fejltekst": "hej\x00"}, "fejltekst"),
        ({"fejlOphav": {"id": 30, "navn": "DFDG"}}, "fejlOphav"),
        ({"fejlOphav": "Jobnet"}, "fejlOphav"),
        ({"fejlTidspunkt": "2030-01-07T09:00:00"}, "fejlTidspunkt"),
        ({"moedetilbudId": "17"}, "moedetilbudId"),
        ({"indkaldelseId": None}, "indkaldelseId"),
        ({"stacktrace": "…"}, "stacktrace"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_report_that_breaks_a_rule_is_a_breach(
    contract: Sender, webhook: Sender, change: dict[str, Any], named: str
) -> None:
    assert await contract.contract(FACTS | change) == 400
    assert await webhook.webhook(webhook.report(**change)) == 400
    for sender in (contract, webhook):
        assert [named in breach for breach in sender.supplier.breaches] == [True]
        assert sender.supplier.inbox() == []


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"x_civilregistrationIdentifier": "6101364001"}, "x-civilregistrationIdentifier"),
        ({"x_requestId": "x" * 47}, "x-requestId"),
        ({"x_activeOrganisation": "90009"}, "does not serve"),
        ({"traceparent": "00"}, "traceparent"),
    ],
)
async def test_the_contract_asks_for_its_headers(
    contract: Sender, headers: dict[str, str], named: str
) -> None:
    assert await contract.contract(**headers) == 400
    assert named in contract.supplier.breaches[0]


async def test_a_report_that_is_not_signed_with_a_current_secret_gets_401(webhook: Sender) -> None:
    webhook.secrets = [new_secret()]
    assert await webhook.webhook() == 401
    assert "the signature does not verify" in webhook.supplier.breaches[0]
    webhook.secrets.append(webhook.supplier.secrets[0])  # two signatures while secrets are rotated
    assert await webhook.webhook() == 204
    assert await webhook.webhook(late=timedelta(minutes=10)) == 401
    assert len(webhook.supplier.inbox()) == 1


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"ids": "another"}, "webhook-id"),
        ({"x_note": f"about {ANNA}"}, "CPR number is in a header"),
        ({"Content_Type": "text/plain"}, "content-type"),
    ],
    ids=["id", "personal", "type"],
)
async def test_a_webhook_keeps_to_its_form(webhook: Sender, more: dict[str, Any], named: str) -> None:
    assert await webhook.webhook(**more) == 400
    assert named in webhook.supplier.breaches[0]
    assert ANNA not in str(webhook.supplier.breaches)


async def test_a_report_for_a_jobcenter_of_another_supplier_is_a_breach(webhook: Sender) -> None:
    assert await webhook.webhook(webhook.report(jobcenterkode="90001")) == 400


async def test_an_unanswered_report_that_is_sent_again_is_one_report_in_both_formats(
    contract: Sender, webhook: Sender
) -> None:
    """The contract answers 412 to the same x-requestId; a webhook's receiver recognises the webhook-id."""
    for sender in (contract, webhook):
        sender.supplier.script("report", "reset", after_work=True)
    whole = webhook.report()
    with pytest.raises(CUT):
        await contract.contract(x_requestId="one")
    assert await contract.contract(x_requestId="one") == 412
    with pytest.raises(CUT):
        await webhook.webhook(whole, x_requestId="one")
    assert await webhook.webhook(whole, x_requestId="one") == 204
    assert [sender.supplier.inbox()[0]["times"] for sender in (contract, webhook)] == [1, 2]
    assert contract.supplier.books()["disagreements"] == webhook.supplier.books()["disagreements"] == []


async def test_a_report_that_arrives_twice_after_a_500_is_no_error(contract: Sender) -> None:
    contract.supplier.script("report", "status", status=500, after_work=True)
    assert [await contract.contract() for _ in range(2)] == [500, 204]
    assert contract.supplier.inbox()[0]["times"] == 2
    assert contract.supplier.books()["disagreements"] == []


async def test_a_repeat_without_a_reason_is_an_error(contract: Sender, webhook: Sender) -> None:
    for _ in range(2):
        await contract.contract()
    assert "although it had been answered 204" in contract.supplier.books()["disagreements"][0]
    whole = webhook.report()
    webhook.supplier.script("report", "reset", after_work=True)
    with contextlib.suppress(*CUT):
        await webhook.webhook(whole)
    await webhook.webhook(whole)  # another x-requestId
    await webhook.webhook(webhook.report())  # the same facts under another id
    await webhook.webhook(whole | {"fejltekst": "andet"}, x_requestId="b")
    errors = " | ".join(webhook.supplier.books()["disagreements"])
    assert "although it had not been answered" in errors
    assert "are one report" in errors
    assert "with other content" in errors


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
async def test_a_report_before_the_time_of_retry_after_is_an_error(
    contract: Sender, monkeypatch: pytest.MonkeyPatch, as_date: bool
) -> None:
    monkeypatch.setattr("sandbox.supplier.GRACE_S", -1.0)
    later = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    contract.supplier.script("report", "status", status=503, retry_after=later if as_date else "60")
    assert await contract.contract() == 503
    assert contract.supplier.books()["disagreements"] == []
    assert await contract.contract() == 204
    assert "Retry-After" in contract.supplier.books()["disagreements"][0]


async def test_a_supplier_goes_down_hangs_and_comes_back_with_its_inbox(contract: Sender) -> None:
    assert await contract.contract() == 204
    await contract.supplier.down()
    with pytest.raises(aiohttp.ClientOSError):
        await contract.contract()
    await contract.supplier.up()
    contract.supplier.script("report", "hang", seconds=60)
    hanging = asyncio.create_task(contract.contract())
    await poll(lambda: contract.supplier.journal.in_flight, what="the call that hangs")
    contract.supplier.release()
    with pytest.raises(CUT):
        await hanging
    assert len(contract.supplier.inbox()) == 1


async def test_the_inbox_can_be_read_over_http(
    sandbox: Sandbox, contract: Sender, http: aiohttp.ClientSession
) -> None:
    contract.supplier.script("report", "redirect")
    assert [await contract.contract() for _ in range(2)] == [302, 204]
    async with http.get(f"{sandbox.desk_url}/fyrtaarn/_control/inbox") as answer:
        assert [report["fejlkode"] for report in await answer.json()] == [4]
    async with http.get(f"{sandbox.desk_url}/birk/_control/inbox") as answer:
        assert await answer.json() == []
    contract.supplier.reset()
    assert contract.supplier.inbox() == []
