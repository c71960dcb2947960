"""One trace from the frontend to the supplier's inbox, seen by a collector and by the systems that were called."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from schemas.ids import invitation_of
from scripts.postgres import PostgresServer
from scripts.rabbitmq import RabbitServer
from tests.functional.conftest import prepared_broker
from tests.functional.running_broker import Frontend, RunningBroker, booking, layout
from tests.otlp import Collector, Span
from tests.support import poll

pytestmark = [pytest.mark.timeout(120)]

BOOK = "booking.book.v1"


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as collector:
        yield collector


@pytest_asyncio.fixture
async def broker(
    rabbit: RabbitServer, postgres: PostgresServer, tmp_path: Path
) -> AsyncIterator[RunningBroker]:
    async with prepared_broker(rabbit, postgres, tmp_path, layout()) as broker:
        yield broker


@pytest_asyncio.fixture
async def frontend(broker: RunningBroker) -> AsyncIterator[Frontend]:
    async with Frontend(broker.amqp_url) as frontend:
        yield frontend


class Trace:
    """A frontend's own span, which the request is sent from."""

    def __init__(self, *, sampled: bool = True) -> None:
        self.trace_id, self.span_id = secrets.token_hex(16), secrets.token_hex(8)
        self.headers = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{'01' if sampled else '00'}"}


def refuse(broker: RunningBroker, body: dict[str, Any]) -> None:
    """Its reservation fails, so that a report is due."""
    system = broker.sandbox.booking_systems["system-1"]
    system.script("reserve", "status", status=400, invitation=str(invitation_of(UUID(body["requestId"]))))


def seen_by(system: Any, operation: str) -> list[str]:
    """The traceparents that came with calls of this operation."""
    return [call.traceparent for call in system.journal.calls if call.operation == operation]


async def test_a_booking_is_one_trace_and_each_system_gets_the_span_of_its_call(
    broker: RunningBroker, frontend: Frontend, collector: Collector
) -> None:
    await broker.start(changes=collector.changes)
    theirs = Trace()
    body = booking(broker, 1)
    answer = await frontend.ask(BOOK, body, headers=theirs.headers)
    assert answer["status"] == "done"
    carried = await collector.one(f"carry {BOOK}", theirs.trace_id)
    assert carried.parent == theirs.span_id
    assert carried.facts["jobnet.status"] == "done"
    assert carried.facts["jobnet.request_id"] == body["requestId"]
    assert not carried.failed
    (waited,) = collector.below(carried, "wait jobnet.bookings")
    assert waited.began == carried.began <= waited.ended <= carried.ended
    (handled,) = collector.below(carried, f"handle {BOOK}")
    system = broker.sandbox.booking_systems["system-1"]
    for step in ("times", "reserve", "create"):
        (call,) = collector.below(handled, f"{step} system-1")
        assert call.facts["jobnet.http_status"] in (200, 201)
        assert seen_by(system, step) == [call.traceparent]


async def test_a_failure_goes_on_to_the_supplier_in_the_same_trace(
    broker: RunningBroker, frontend: Frontend, collector: Collector
) -> None:
    await broker.start(changes=collector.changes)
    theirs = Trace()
    body = booking(broker, 1)
    refuse(broker, body)
    supplier = broker.sandbox.suppliers["supplier-1"]
    supplier.script("report", "status", status=500, times=1)
    answer = await frontend.ask(BOOK, body, headers=theirs.headers)
    assert answer["status"] == "failed"
    report = await collector.one("report supplier-1", theirs.trace_id)
    (carried,) = collector.named(f"carry {BOOK}", theirs.trace_id)
    assert carried.failed
    assert report.parent == carried.span_id
    assert not report.failed
    first, second = sorted(collector.below(report, "attempt supplier-1"), key=lambda span: span.began)
    assert (first.failed, second.failed) == (True, False)
    assert second.facts["jobnet.attempt"] == 2
    calls = [collector.below(attempt, "fejlmelding supplier-1")[0] for attempt in (first, second)]
    assert seen_by(supplier, "report") == [call.traceparent for call in calls]
    assert report.began < second.began
    assert second.ended <= report.ended


async def test_what_a_person_replays_is_a_trace_of_its_own_with_a_link_back(
    broker: RunningBroker, frontend: Frontend, collector: Collector
) -> None:
    await broker.start(changes=collector.changes)
    theirs = Trace()
    body = booking(broker, 1)
    refuse(broker, body)
    broker.sandbox.suppliers["supplier-1"].script("report", "status", status=400, times=1)
    await frontend.ask(BOOK, body, headers=theirs.headers)
    dead = await collector.one("report supplier-1", theirs.trace_id)
    assert dead.failed
    code, out, err = await broker.call(
        "dead", "replay", "--supplier", "supplier-1", "--reason", "mended", "--yes"
    )
    assert code == 0, out + err

    def replayed() -> list[Span]:
        return [span for span in collector.named("attempt supplier-1") if "jobnet.replayed" in span.facts]

    (again,) = await poll(replayed, what="the attempt after the replay")
    assert again.trace_id != theirs.trace_id
    assert again.links == ((dead.trace_id, dead.span_id),)
    assert not again.failed
    assert len(collector.below(again, "fejlmelding supplier-1")) == 1
    assert len(collector.named("report supplier-1")) == 1


async def test_a_frontend_that_does_not_want_to_be_traced_is_not(
    broker: RunningBroker, frontend: Frontend, collector: Collector
) -> None:
    process = await broker.start(changes=collector.changes)
    silent, heard = Trace(sampled=False), Trace()
    await frontend.ask(BOOK, booking(broker, 1), headers=silent.headers)
    await frontend.ask(BOOK, booking(broker, 2), headers=heard.headers)
    await frontend.ask(BOOK, booking(broker, 3))
    assert await process.stop() == 0
    traces = {span.trace_id for span in collector.spans}
    assert heard.trace_id in traces
    assert silent.trace_id not in traces
    assert len(collector.named(f"carry {BOOK}")) == 2  # one without a traceparent begins a trace of its own
    # The trace goes on through us all the same
    assert any(
        silent.trace_id in seen for seen in seen_by(broker.sandbox.booking_systems["system-1"], "create")
    )


async def test_spans_that_wait_are_sent_at_the_stop(
    broker: RunningBroker, frontend: Frontend, collector: Collector
) -> None:
    process = await broker.start(changes=collector.changes)
    theirs = Trace()
    await frontend.ask(BOOK, booking(broker, 1), headers=theirs.headers)
    assert await process.stop() == 0
    assert collector.named(f"carry {BOOK}", theirs.trace_id)


@pytest.mark.parametrize("trouble", ["ill", "hung"])
async def test_a_collector_in_trouble_holds_nobody_up_and_stops_no_stop(
    broker: RunningBroker, frontend: Frontend, collector: Collector, trouble: str
) -> None:
    setattr(collector, trouble, True)
    process = await broker.start(changes=collector.changes)
    for number in range(20):
        answer = await frontend.ask(BOOK, booking(broker, number))
        assert answer["status"] == "done"
    await poll(lambda: collector.asked, what="the collector to be asked")
    began = time.monotonic()
    assert await process.stop() == 0
    assert time.monotonic() - began < 12  # stop.drain_seconds of the tests
    assert collector.spans == []
    if trouble == "ill":
        said = [line for line in process.lines() if line["event"] == "spans-lost"]
        assert len(said) == 1, "once a minute, not for each batch"
