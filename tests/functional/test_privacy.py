"""Marked CPR numbers take every path; then none is found where it must not be (docs/privacy.md#cpr)."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import aio_pika
import pytest
import pytest_asyncio

from schemas.ids import invitation_of
from scripts.postgres import PostgresServer
from scripts.processes import free_port
from scripts.rabbitmq import RabbitServer
from tests.functional.conftest import prepared_broker
from tests.functional.running_broker import (
    Frontend,
    Process,
    RunningBroker,
    booking,
    cpr_of,
    fetched,
    layout,
    request,
)
from tests.otlp import Collector
from tests.support import poll

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

DEBUG = {"JOBNET_BROKER__LOG__LEVEL": "debug"}
MARKED = range(700, 760)
COMMANDS = [
    ("dead", "list", "--json"),
    ("dead", "list"),
    ("dead", "groups", "--json"),
    ("reports", "list", "--json"),
    ("lanes", "list", "--json"),
    ("ledger", "conserve", "--json"),
]
QUEUES = (
    "jobnet.queries.dead",
    "jobnet.bookings.dead",
    "jobnet.citizen-reports.dead",
    "jobnet.reports.supplier-1",
    "jobnet.reports.supplier-1.dead",
    "test.outcomes",
)


async def _bodies(url: str, queue: str) -> list[bytes]:
    """Everything in a queue, bodies and headers, without taking it away for good."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue, passive=True)
        found = []
        while (message := await declared.get(fail=False)) is not None:
            found += [message.body, repr(message.info()).encode()]
        return found


async def _report_every_way(broker: RunningBroker, frontend: Frontend, numbers: Iterator[int]) -> None:
    """Failures and citizens' words: delivered, rejected by the supplier, for nobody, with numbers in free text."""
    system, supplier = broker.sandbox.booking_systems["system-1"], broker.sandbox.suppliers["supplier-1"]
    supplier.script("report", "status", status=400, times=2)
    for _ in range(4):
        body = booking(broker, next(numbers))
        invitation = str(invitation_of(UUID(body["requestId"])))
        system.script("reserve", "status", status=400, invitation=invitation)
        await frontend.ask("booking.book.v1", body)
    for jobcenter in ("90001", "95555"):
        words = f"Mit nummer er {cpr_of(next(numbers))}"
        citizens = request(next(numbers), jobcenter, fejlkode=4, fejltekst=words)
        await frontend.ask("report.citizen.v1", citizens)
    await frontend.ask(
        "report.citizen.v1", request(next(numbers), fejlkode=9, fejltekst=cpr_of(next(numbers)))
    )


async def _walk_every_path(broker: RunningBroker, frontend: Frontend) -> None:
    system = broker.sandbox.booking_systems["system-1"]
    numbers = iter(MARKED)

    async def ask(type_: str, body: dict[str, object], **properties: object) -> None:
        await frontend.send(type_, body, **properties)

    await ask("booking.book.v1", booking(broker, next(numbers)))
    await ask("query.offers.v1", request(next(numbers), kontaktgruppe="1"))
    await ask("booking.book.v1", booking(broker, next(numbers), moedeform="nej"))
    await ask("booking.book.v1", booking(broker, next(numbers), moedeform=cpr_of(next(numbers))))
    await ask("booking.book.v1", {**booking(broker, next(numbers)), cpr_of(next(numbers)): "x"})
    await ask("booking.book.v1", booking(broker, next(numbers)), reply_to=None)
    await ask("booking.book.v1", booking(broker, next(numbers)), reply_to="jobnet.answers.gone")
    await ask(
        "booking.book.v1", booking(broker, next(numbers)), headers={"traceparent": cpr_of(next(numbers))}
    )
    await frontend.send("booking.book.v1", cpr_of(next(numbers)).encode())
    await frontend.send("booking.book.v1", cpr_of(next(numbers)).encode(), reply_to=None)
    await frontend.send(cpr_of(next(numbers)) + ".v1", b"{}", routing_key="booking.book")
    await _report_every_way(broker, frontend, numbers)
    for how in (
        {"action": "status", "status": 500},
        {"action": "garbage"},
        {"action": "html"},
        {"action": "reset"},
    ):
        body = booking(broker, next(numbers))
        system.script("create", **how, invitation=str(invitation_of(UUID(body["requestId"]))))
        await ask("booking.book.v1", body)
    for how in (
        {"action": "status", "status": 404},
        {"action": "status", "status": 401},
        {"action": "redirect"},
    ):
        body = booking(broker, next(numbers))
        system.script("reserve", **how, invitation=str(invitation_of(UUID(body["requestId"]))))
        await ask("booking.book.v1", body)


async def _printed_by_commands(broker: RunningBroker, traced: str) -> dict[str, bytes]:
    """What each command prints, by its words."""

    async def printed(*words: str) -> bytes:
        return (await broker.call(*words))[1].encode()

    told = {" ".join(words): await printed(*words) for words in COMMANDS}
    letter = json.loads(told["dead list --json"])[0]["letter_id"]
    told["dead show"] = await printed("dead", "show", letter)
    await broker.call("dead", "discard", letter, "--reason", "privacy test")
    told["log"] = await printed("log", "--json")
    told["trace"] = await printed("trace", traced)
    return told


async def _stored(broker: RunningBroker) -> dict[str, bytes]:
    """The content of each queue and each table."""
    found = {queue: b"\n".join(await _bodies(broker.amqp_url, queue)) for queue in QUEUES}
    for table in await broker.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        content = await broker.rows(f'SELECT * FROM "{table[0]}"')  # noqa: S608  names from the catalogue
        found[f"table {table[0]}"] = b"\n".join(repr(dict(each)).encode() for each in content)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def written(
    rabbit: RabbitServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, bytes]]:
    """Everything that the broker wrote anywhere about requests with marked numbers, by where."""
    setting = layout(absence_proves_after_seconds=12.0)
    async with (
        Collector() as collector,
        prepared_broker(rabbit, postgres, tmp_path_factory.mktemp("privacy"), setting) as broker,
    ):
        watched = {"JOBNET_BROKER__HEALTH__PORT": str(free_port()), **collector.changes}
        first = await broker.start(changes=DEBUG | watched)
        async with Frontend(broker.amqp_url) as frontend:
            await _walk_every_path(broker, frontend)
            await poll(lambda: len(frontend.answers) >= 12, what="the answers")
            metrics = await _crash_under_way(broker, frontend, first, watched)
            second = await broker.start(changes=DEBUG | watched)

            async def all_final() -> bool:
                return not await broker.rows("SELECT 1 FROM requests WHERE state IN ('running', 'uncertain')")

            await poll(all_final, timeout=60, what="the last word on everything")
            metrics += (await fetched(watched, "metrics"))[1] + (await fetched(watched, "readyz"))[1]
        [traced, *_] = await broker.rows("SELECT request_id FROM requests ORDER BY request_id")
        told = await _printed_by_commands(broker, str(traced[0]))
        await second.stop()
        yield {
            "log": first.log.read_bytes() + second.log.read_bytes(),
            "outcome events": str(dict(frontend.events)).encode(),
            "answers": str(dict(frontend.answers)).encode(),
            "metrics": metrics.encode(),
            "spans": b"\n".join([*collector.bodies, repr(collector.spans).encode()]),
            "names of spans": repr(collector.named("attempt supplier-1")).encode(),
            **told,
            **await _stored(broker),
        }


async def _crash_under_way(
    broker: RunningBroker, frontend: Frontend, process: Process, watched: dict[str, str]
) -> str:
    """Kill the broker while it books: what the next process finds and writes counts too. Returns its metrics."""
    system = broker.sandbox.booking_systems["system-1"]
    body = booking(broker, MARKED[-1])
    invitation = str(invitation_of(UUID(body["requestId"])))
    system.script("create", "hang", seconds=30, invitation=invitation)
    await frontend.send("booking.book.v1", body)

    def under_way() -> bool:
        return any(c.invitation == invitation and c.operation == "create" for c in system.journal.calls)

    await poll(under_way, what="the booking to be under way")
    metrics = (await fetched(watched, "metrics"))[1]
    process.kill()
    return metrics


def shapes(cpr: str) -> tuple[bytes, ...]:
    """The ways to write a number."""
    plain = (cpr, f"{cpr[:6]}-{cpr[6:]}", f"{cpr[:6]} {cpr[6:]}", base64.b64encode(cpr.encode()).decode())
    return tuple(shape.encode() for shape in plain)


async def test_the_paths_were_walked(written: dict[str, bytes]) -> None:
    assert len(written["table requests"]) > 1000
    assert len(written["jobnet.bookings.dead"]) > 0
    assert b"jobnet_dead_letters{" in written["metrics"]
    assert written["names of spans"] != b"[]"
    needed = ("log", "outcome events", "answers", "trace", "dead show")
    assert [name for name in needed if not written[name]] == []


async def test_no_marked_number_shows_where_it_should_not(written: dict[str, bytes]) -> None:
    numbers = [shape for number in MARKED for shape in shapes(cpr_of(number))]
    assert [where for where, text in written.items() if any(shape in text for shape in numbers)] == []
