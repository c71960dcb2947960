"""Reports delivered to a server that is not ours: nginx with a client certificate, which logs what it got."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from broker.clients import SupplierReceipt
from broker.clients.http import HttpSystem
from broker.clients.supplier import Supplier
from broker.errors import Misconfigured
from broker.lanes.retry_policy import x_request_id
from config.suppliers import Supplier as SupplierConfig
from schemas.codes import ErrorCode, ReportKind
from schemas.failure_reports import Report
from schemas.personal import Cpr
from tests.certificates import Certificates, made_in
from tests.clients.support import limits
from tests.functional.foreign_nginx import Nginx
from tests.support import poll

CPR = "0101364001"
OFFER, INVITATION = UUID(int=0xA), UUID(int=0xB)
REPORT = Report(
    report_id=UUID("0f0f0f0f-0000-4000-8000-00000000000b"),
    kind=ReportKind.AUTOMATIC,
    cpr=Cpr(CPR),
    offer_id=OFFER,
    invitation_id=INVITATION,
    error_code=ErrorCode.OTHER,
    error_text='Bookingsystemet svarede ikke på "opret" inden for 8 sekunder.\nSidste trin: opret ✗',
    occurred_at=datetime(2031, 7, 3, 8, 0, tzinfo=UTC),
    jobcenter_code="08510",
    supplier="nordlys",
)
X_REQUEST_ID = x_request_id(REPORT.report_id, 1)
OLD, NEW = (f"whsec_{base64.b64encode(bytes([n]) * 32).decode()}" for n in (1, 2))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return made_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("nginx"), certificates) as running:
        yield running


@asynccontextmanager
async def supplier(
    url: str, certificates: Certificates, *, as_client: bool = True, **more: Any
) -> AsyncIterator[Supplier]:
    ours: dict[str, Path] = {"ca_file": certificates.ca}
    if as_client:
        ours |= {"client_cert": certificates.client.cert, "client_key": certificates.client.key}
    config = SupplierConfig.model_validate({"name": "Nordlys A/S", "base_url": url} | ours | more)
    async with HttpSystem("nordlys", config, limits()) as system:
        yield Supplier("nordlys", config, system)


async def logged(server: Nginx, before: int) -> dict[str, Any]:
    """The one request that nginx logged since there were `before`."""
    got: list[dict[str, Any]] = await poll(lambda: server.got()[before:], what="nginx's log")
    assert len(got) == 1
    return got[0]


async def test_nginx_gets_all_seven_fields_of_the_contract(server: Nginx, certificates: Certificates) -> None:
    before = len(server.got())
    async with supplier(server.url, certificates) as to:
        assert await to.deliver(REPORT, x_request_id=X_REQUEST_ID, attempt=1) is SupplierReceipt.DELIVERED
    got = await logged(server, before)
    assert (got["method"], got["uri"], got["status"]) == ("POST", "/v1/BorgerBooking/Fejlmelding", "204")
    assert (got["client"], got["verified"]) == ("CN=client", "SUCCESS")
    assert (got["cpr"], got["x_request_id"], got["organisation"]) == (CPR, X_REQUEST_ID, "08510")
    assert got["content_type"] == "application/json"
    assert json.loads(got["body"]) == {
        "moedetilbudId": str(OFFER),
        "indkaldelseId": str(INVITATION),
        "fejlkode": 4,
        "fejltekst": REPORT.error_text,
        "fejlOphav": {"id": 32, "navn": "Jobnet"},
        "fejlTidspunkt": "2031-07-03T10:00:00+02:00",
    }


async def test_what_nginx_logged_of_a_webhook_verifies_under_both_secrets(
    server: Nginx, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLD_SECRET", OLD)
    monkeypatch.setenv("NEW_SECRET", NEW)
    before = len(server.got())
    webhook: dict[str, Any] = {"format": "webhook", "webhook_secret_envs": ("OLD_SECRET", "NEW_SECRET")}
    async with supplier(f"{server.url}/hooks/17", certificates, **webhook) as to:
        assert await to.deliver(REPORT, x_request_id=X_REQUEST_ID, attempt=1) is SupplierReceipt.DELIVERED
    got = await logged(server, before)
    assert (got["uri"], got["status"], got["cpr"]) == ("/hooks/17", "204", "")
    for secret in (OLD, NEW):
        told = Webhook(secret).verify(got["body"], got)
        assert (told["cpr"], told["reportId"], told["fejltekst"]) == (
            CPR,
            str(REPORT.report_id),
            REPORT.error_text,
        )
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(got["body"].replace("08510", "08511"), got)


async def test_nginx_refuses_who_brings_no_certificate_and_that_is_our_setup(
    server: Nginx, certificates: Certificates
) -> None:
    before = len(server.got())
    async with supplier(server.url, certificates, as_client=False) as to:
        with pytest.raises(Misconfigured, match="certificate"):
            await to.deliver(REPORT, x_request_id=X_REQUEST_ID, attempt=1)
    got = await logged(server, before)
    assert (got["status"], got["verified"]) == ("400", "NONE")


async def test_a_name_that_the_certificate_does_not_hold_gets_nothing(
    server: Nginx, certificates: Certificates
) -> None:
    before = len(server.got())
    async with supplier(server.elsewhere, certificates) as to:
        with pytest.raises(Misconfigured, match="certificate"):
            await to.deliver(REPORT, x_request_id=X_REQUEST_ID, attempt=1)
    assert len(server.got()) == before
