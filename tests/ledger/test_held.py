"""Claims are let go where their work ends, not when Python's garbage collector happens to run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from broker.clients import Systems
from broker.ledger.ledger import Ledger
from broker.ledger.model import Claim, RowRefused, StoredAnswer
from broker.ledger.reports.report_model import ReportClaim
from broker.publisher import Publisher
from broker.rabbitmq import Arrival
from broker.reports.delivery import Deliveries
from schemas.failure_reports import LaneMessage
from tests.ledger.execution_support import execution_on, routed
from tests.ledger.report_support import handed_over, report_row, reported
from tests.ledger.support import Sql, ending, row, settings_for


@pytest.fixture(autouse=True)
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def abandoned(_: Claim) -> StoredAnswer:
    return ending()


async def test_a_settle_that_was_refused_is_an_orphan_at_once(
    ledger: Ledger, dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any) -> Any:
        raise RowRefused("23514")

    # A citizen's report calls no system and never expires, so its deadline may be over.
    request = routed("report.citizen.v1", within=-60.0)
    with monkeypatch.context() as patched:
        patched.setattr(ledger.requests._settling, "_flush", refused)
        with pytest.raises(RowRefused):
            await execution_on(ledger, dsn).run(request)
    assert (await row(sql, request.message.request_id))["state"] == "running"
    assert await ledger.verifications.sweep(abandoned) == 1
    assert (await row(sql, request.message.request_id))["state"] == "settled"


async def test_an_attempt_whose_result_was_refused_is_an_orphan_at_once(
    ledger: Ledger, dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    def supplier(_: str) -> Any:
        raise RuntimeError("a bug")

    async def refused(*_: Any) -> Any:
        raise RowRefused("23514")

    report_id = await reported(ledger)
    [handed] = await handed_over(ledger)
    systems = cast(Systems, SimpleNamespace(supplier=supplier, directory=SimpleNamespace(suppliers={})))
    deliveries = Deliveries(settings_for(dsn), ledger, systems, cast(Publisher, None))
    message = LaneMessage(report_id=report_id, number=handed.number, supplier=handed.supplier)
    with monkeypatch.context() as patched:
        patched.setattr(ledger.reports, "finish", refused)
        handled = await deliveries._handle(cast(Arrival, SimpleNamespace(body=message.to_json())))
    assert isinstance(handled.claim, ReportClaim)
    assert handled.recorded is None
    assert (await report_row(sql, report_id))["state"] == "delivering"
    assert await ledger.reports.sweep() == 1
    assert (await report_row(sql, report_id))["state"] == "waiting"
