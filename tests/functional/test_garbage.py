"""Garbage on every queue: refused or put aside, and the neighbours in the same batch are unharmed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pamqp.commands import Basic

from broker.rabbitmq.topology import dead_queue_of
from tests.functional.running_broker import Frontend, RunningBroker, booking, request
from tests.rabbitmq.foreign import short
from tests.rabbitmq.raw_client import DIRECT_REPLY, correlation_id_of, raw_client
from tests.support import poll

pytestmark = pytest.mark.asyncio(loop_scope="module")

GARBAGE: dict[str, bytes] = {
    "empty": b"",
    "ten megabytes": b"x" * 10_000_000,
    "not UTF-8": b'{"requestId": "\xff\xfe"}',
    "UTF-16": '{"requestId": 1}'.encode("utf-16"),
    "not JSON": b"<hej/>",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a NUL": json.dumps({"requestId": "\x00", "cpr": "\x00"}).encode(),
    "a lone surrogate": b'{"cpr": "\\ud800"}',
    "a huge number": b'{"cpr": ' + b"9" * 20_000 + b"}",
    "NaN": b'{"cpr": NaN}',
    "twice the same key": b'{"cpr": "1", "cpr": "2"}',
}
KEYS = {"jobnet.queries": "query.offers", "jobnet.bookings": "booking.book"}


async def first_answer(frontend: Frontend, correlation_id: str) -> list[dict[str, Any]]:
    await poll(lambda: frontend.answers[correlation_id], what=f"the answer to {correlation_id}")
    return frontend.answers[correlation_id]


async def letters(broker: RunningBroker, queue: str) -> int:
    """How many letters the ledger has for a dead-letter queue; the pass has taken them in from RabbitMQ."""
    rows = await broker.rows("SELECT count(*) FROM letters WHERE queue = $1", queue)
    return int(rows[0][0])


async def become(broker: RunningBroker, queue: str, count: int) -> None:
    """Wait until there are so many."""

    async def there() -> bool:
        return await letters(broker, queue) == count

    await poll(there, what=f"{count} letters in {queue}; there are {await letters(broker, queue)}")


@pytest.mark.parametrize("queue", KEYS)
async def test_garbage_with_somewhere_to_answer_is_refused(
    shared: RunningBroker, frontend: Frontend, queue: str
) -> None:
    neighbours = [booking(shared, 200 + n + 50 * (queue == "jobnet.queries")) for n in range(20)]
    rounds = [
        frontend.send(f"{KEYS[queue]}.v1", body, routing_key=KEYS[queue], correlation_id=f"{queue} {name}")
        for name, body in GARBAGE.items()
    ]
    await asyncio.gather(*rounds, *(frontend.send("booking.book.v1", body) for body in neighbours))
    for name in GARBAGE:
        answers = await first_answer(frontend, f"{queue} {name}")
        assert (answers[0]["status"], answers[0]["reason"]) == ("refused", "invalid"), name
        assert answers[0]["fields"], name
    for body in neighbours:
        assert (await first_answer(frontend, body["requestId"]))[0]["status"] == "done"


@pytest.mark.parametrize("queue", KEYS)
async def test_garbage_without_anywhere_to_answer_is_a_sealed_dead_letter(
    shared: RunningBroker, frontend: Frontend, queue: str
) -> None:
    before = await letters(shared, dead_queue_of(queue))
    for body in GARBAGE.values():
        await frontend.send(f"{KEYS[queue]}.v1", body, routing_key=KEYS[queue], reply_to=None)

    await become(shared, dead_queue_of(queue), before + len(GARBAGE))


@pytest.mark.parametrize("reply_to", [None, "jobnet.bookings", "jobnet.bookings.dead", "somebody.elses"])
async def test_a_good_request_that_points_our_answer_elsewhere_is_a_dead_letter_and_nothing_is_called(
    shared: RunningBroker, frontend: Frontend, reply_to: str | None
) -> None:
    calls = len(shared.sandbox.planners["nordlys"].journal.calls)
    before = await letters(shared, "jobnet.queries.dead")
    await frontend.send("query.offers.v1", request(kontaktgruppe="1"), reply_to=reply_to)

    await become(shared, "jobnet.queries.dead", before + 1)
    assert len(shared.sandbox.planners["nordlys"].journal.calls) == calls


async def test_what_matches_no_route_is_kept(shared: RunningBroker, frontend: Frontend) -> None:
    before = await letters(shared, "jobnet.unrouted.dead")
    await frontend.send("booking.bok.v1", booking(shared, 280))

    await become(shared, "jobnet.unrouted.dead", before + 1)


@pytest.mark.parametrize(
    "properties",
    [
        {"headers": {"traceparent": "garbage\r\nx: y"}},
        {"headers": {"traceparent": 7, "x": {"deep": [1, {"er": None}]}}},
        {"content_type": "text/plain"},
        {"correlation_id": "é" * 100},
        {"type": None},
        {"expiration": 60},
    ],
)
async def test_odd_properties_harm_nobody(
    shared: RunningBroker, frontend: Frontend, properties: dict[str, Any]
) -> None:
    await frontend.send("query.offers.v1", request(kontaktgruppe="1"), **properties)
    answer = await frontend.ask("query.offers.v1", request(kontaktgruppe="1"))
    assert answer["status"] == "done"


CORRELATION_IDS = {
    "16 bytes of a UUID": bytes.fromhex("ff00c1fe80994d6f8a610c2d3e4f5a6b"),
    "Latin-1": "forespørgsel".encode("latin-1"),
    "half a character": b"abc\xc3",
    "a surrogate": b"\xed\xa0\x80",
    "255 bytes": b"\xff" * 255,
    "empty": b"",
    "UTF-8": "forespørgsel".encode(),
}


@pytest.mark.parametrize("correlation_id", CORRELATION_IDS.values(), ids=CORRELATION_IDS)
async def test_a_correlation_id_comes_back_byte_for_byte(
    shared: RunningBroker, correlation_id: bytes
) -> None:
    """It belongs to the frontend, which may take any bytes: AMQP's short string has no encoding that RabbitMQ checks."""
    flags, properties = 0, b""
    for name, value in {
        "content_type": short(b"application/json"),
        "correlation_id": short(correlation_id),
        "reply_to": short(DIRECT_REPLY.encode()),
        "message_type": short(b"query.offers.v1"),
    }.items():
        flags, properties = flags | Basic.Properties.flags[name], properties + value
    body = json.dumps(request(kontaktgruppe="1")).encode()

    def story() -> tuple[bytes, bytes]:
        with raw_client(shared.amqp_url) as client:
            client.publish("jobnet.requests", "query.offers", body, flags, properties)
            return client.arrival()

    header, answer = await asyncio.to_thread(story)
    assert json.loads(answer)["status"] == "done"
    assert correlation_id_of(header) == correlation_id
