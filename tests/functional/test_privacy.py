"""Marked CPR numbers through every path, then looked for everywhere they may not be (DESIGN 9)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from uuid import UUID

import aio_pika
import pytest

from sandbox.servers import Sandbox
from schemas.ids import invitation_of
from scripts.postgres import PostgresServer
from scripts.processes import free_port
from scripts.rabbitmq import RabbitServer
from tests.functional.stage import Frontend, Stage, booking, cpr_of, fetched, layout, request
from tests.otlp import Collector
from tests.support import poll

DEBUG = {"JOBNET_BROKER__LOG__LEVEL": "debug"}
MARKED = range(700, 760)
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


async def _report_every_way(stage: Stage, frontend: Frontend, numbers: Iterator[int]) -> None:
    """Failures and citizens' words: delivered, rejected by the supplier, for nobody, with numbers in free text."""
    system, supplier = stage.sandbox.booking_systems["system-1"], stage.sandbox.suppliers["supplier-1"]
    supplier.script("report", "status", status=400, times=2)
    for _ in range(4):
        body = booking(stage, next(numbers))
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


async def _walk_every_path(stage: Stage, frontend: Frontend) -> None:
    system = stage.sandbox.booking_systems["system-1"]
    numbers = iter(MARKED)

    async def ask(type_: str, body: dict[str, object], **properties: object) -> None:
        await frontend.send(type_, body, **properties)

    await ask("booking.book.v1", booking(stage, next(numbers)))
    await ask("query.offers.v1", request(next(numbers), kontaktgruppe="1"))
    await ask("booking.book.v1", booking(stage, next(numbers), moedeform="nej"))
    await ask("booking.book.v1", booking(stage, next(numbers), moedeform=cpr_of(next(numbers))))
    await ask("booking.book.v1", {**booking(stage, next(numbers)), cpr_of(next(numbers)): "x"})
    await ask("booking.book.v1", booking(stage, next(numbers)), reply_to=None)
    await ask("booking.book.v1", booking(stage, next(numbers)), reply_to="jobnet.answers.gone")
    await ask(
        "booking.book.v1", booking(stage, next(numbers)), headers={"traceparent": cpr_of(next(numbers))}
    )
    await frontend.send("booking.book.v1", cpr_of(next(numbers)).encode())
    await frontend.send("booking.book.v1", cpr_of(next(numbers)).encode(), reply_to=None)
    await frontend.send(cpr_of(next(numbers)) + ".v1", b"{}", routing_key="booking.book")
    await _report_every_way(stage, frontend, numbers)
    for how in (
        {"action": "status", "status": 500},
        {"action": "garbage"},
        {"action": "html"},
        {"action": "reset"},
    ):
        body = booking(stage, next(numbers))
        system.script("create", **how, invitation=str(invitation_of(UUID(body["requestId"]))))
        await ask("booking.book.v1", body)
    for how in (
        {"action": "status", "status": 404},
        {"action": "status", "status": 401},
        {"action": "redirect"},
    ):
        body = booking(stage, next(numbers))
        system.script("reserve", **how, invitation=str(invitation_of(UUID(body["requestId"]))))
        await ask("booking.book.v1", body)


@pytest.mark.timeout(300)
async def test_no_marked_number_shows_where_it_should_not(
    rabbit: RabbitServer,
    postgres: PostgresServer,
    vhost: str,
    database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("privacy")
    async with Sandbox(layout(absence_proves_after_seconds=12.0)) as sandbox, Collector() as collector:
        stage = Stage(vhost, database, folder, sandbox)
        try:
            await stage.prepare()
            watched = {"JOBNET_BROKER__HEALTH__PORT": str(free_port()), **collector.changes}
            process = await stage.start(changes=DEBUG | watched)
            async with Frontend(vhost) as frontend:
                await _walk_every_path(stage, frontend)
                await poll(lambda: len(frontend.answers) >= 12, what="the answers")
                # A crash in the middle: what the next process finds and writes counts too.
                sandbox.booking_systems["system-1"].script("create", "slow", seconds=1.5)
                await frontend.send("booking.book.v1", booking(stage, MARKED[-1]))
                await asyncio.sleep(0.5)
                shown = (await fetched(watched, "metrics"))[1]
                process.kill()
                second = await stage.start(changes=DEBUG | watched)

                async def all_final() -> bool:
                    return not await stage.rows(
                        "SELECT 1 FROM requests WHERE state IN ('running', 'uncertain')"
                    )

                await poll(all_final, timeout=60, what="the last word on everything")
                shown += (await fetched(watched, "metrics"))[1] + (await fetched(watched, "readyz"))[1]
                assert "jobnet_dead_letters{" in shown
                events = str(dict(frontend.events)).encode()
                # An answer never repeats a number at all.
                answers = str(dict(frontend.answers)).encode()
            commands = [
                ("dead", "list", "--json"),
                ("dead", "list"),
                ("dead", "groups", "--json"),
                ("reports", "list", "--json"),
                ("lanes", "list", "--json"),
                ("ledger", "conserve", "--json"),
            ]
            told = {" ".join(words): (await stage.call(*words))[1].encode() for words in commands}
            assert json.loads(told["dead list --json"])
            letter = json.loads(told["dead list --json"])[0]["letter_id"]
            told["dead show"] = (await stage.call("dead", "show", letter))[1].encode()
            await stage.call("dead", "discard", letter, "--reason", "privacy test")
            told["log"] = (await stage.call("log", "--json"))[1].encode()
            story = (await stage.call("trace", next(iter(frontend.events))))[1].encode()
            await second.stop()
            places = {
                "the log": process.log.read_bytes() + second.log.read_bytes(),
                "outcome events": events,
                "answers": answers,
                "trace": story,
                "metrics": shown.encode(),
                "spans": b"\n".join([*collector.bodies, repr(collector.spans).encode()]),
                **told,
            }
            for queue in QUEUES:
                places[queue] = b"\n".join(await _bodies(vhost, queue))
            for table in await stage.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
                content = await stage.rows(f'SELECT * FROM "{table[0]}"')  # noqa: S608  names from the catalogue
                places[f"table {table[0]}"] = b"\n".join(repr(dict(each)).encode() for each in content)
            assert len(places["table requests"]) > 1000
            assert len(places["jobnet.bookings.dead"]) > 0
            assert collector.named("attempt supplier-1")
        finally:
            await stage.close()
    for cpr in map(cpr_of, MARKED):
        for shape in (
            cpr,
            f"{cpr[:6]}-{cpr[6:]}",
            f"{cpr[:6]} {cpr[6:]}",
            base64.b64encode(cpr.encode()).decode(),
        ):
            for place, written in places.items():
                assert shape.encode() not in written, f"a CPR number shows in {place}"
