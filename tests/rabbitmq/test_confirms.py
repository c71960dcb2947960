"""Publishing to a real RabbitMQ: each outcome, also of concurrent publishes."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pika
import pytest

from broker.errors import RabbitAway
from broker.rabbitmq import Outgoing, Published, Rabbit, RpcClient, open_rpc_client
from broker.rabbitmq.confirms import is_forged
from config.settings import Settings
from tests.rabbitmq import foreign
from tests.rabbitmq.conftest import settings_for
from tests.support import poll

DIRECT = "amq.rabbitmq.reply-to."
PROCESS = b"\x83Xv\x00\x0ereply@97353316" + bytes(12)


def direct(process: bytes, key: str = "hO562fHt+S9hRRBo57H4BA==") -> str:
    return f"{DIRECT}{base64.b64encode(process).decode()}.{key}"


def answer(queue: str, body: bytes = b"{}", **more: Any) -> Outgoing:
    return Outgoing("", queue, body, **more)


async def test_a_publish_is_persistent_and_has_a_new_id_and_a_time(settings: Settings, vhost: str) -> None:
    await asyncio.to_thread(foreign.declare, vhost, "q")
    out = answer("q", b"body", type="answer.v1", correlation_id="c", headers={"traceparent": "00-1", "n": 1})
    async with Rabbit(settings, name="test") as rabbit:
        assert await rabbit.publish(out) is Published.CONFIRMED
        assert await rabbit.publish(out) is Published.CONFIRMED
    _, one, body = await asyncio.to_thread(foreign.get, vhost, "q")
    _, two, _ = await asyncio.to_thread(foreign.get, vhost, "q")
    assert (body, one.type, one.correlation_id, one.delivery_mode) == (b"body", "answer.v1", "c", 2)
    assert (one.content_type, one.app_id) == ("application/json", "jobnet-broker")
    assert one.headers["traceparent"] == "00-1"
    assert one.timestamp
    assert one.message_id
    assert one.message_id != two.message_id


async def test_a_publish_to_no_queue_is_unroutable_when_mandatory_and_confirmed_when_not(
    settings: Settings,
) -> None:
    async with Rabbit(settings, name="test") as rabbit:
        assert await rabbit.publish(answer("nobody")) is Published.UNROUTABLE
        assert await rabbit.publish(answer("nobody", mandatory=False)) is Published.CONFIRMED


async def test_a_full_queue_refuses_until_there_is_room(settings: Settings, vhost: str) -> None:
    await asyncio.to_thread(foreign.declare, vhost, "q", x_max_length=2, x_overflow="reject-publish")
    async with Rabbit(settings, name="test") as rabbit:
        taken = 0

        async def refused() -> bool:
            nonlocal taken
            published = await rabbit.publish(answer("q"))
            taken += published is Published.CONFIRMED
            return published is Published.REFUSED

        await poll(refused, what="a refusal")
        for _ in range(taken):
            await asyncio.to_thread(foreign.get, vhost, "q")

        async def confirmed() -> bool:
            return await rabbit.publish(answer("q")) is Published.CONFIRMED

        await poll(confirmed, what="a confirm")


async def test_concurrent_publishes_keep_their_own_outcomes(settings: Settings, vhost: str) -> None:
    # Given a queue, no queue, and a full queue
    await asyncio.to_thread(foreign.declare, vhost, "q")
    await asyncio.to_thread(foreign.declare, vhost, "full", x_max_length=1, x_overflow="reject-publish")
    async with Rabbit(settings, name="test") as rabbit:

        async def full() -> bool:
            return await rabbit.publish(answer("full")) is Published.REFUSED

        await poll(full, what="a full queue")
        # When six hundred publishes to all of them are in flight at once
        to = {"q": Published.CONFIRMED, "nobody": Published.UNROUTABLE, "full": Published.REFUSED}
        queues = [queue for _ in range(200) for queue in to]
        results = await asyncio.gather(*(rabbit.publish(answer(queue)) for queue in queues))
    # Then each has the outcome of its own queue
    assert results == [to[queue] for queue in queues]
    assert await asyncio.to_thread(foreign.depth, vhost, "q") == 200


async def test_a_missing_exchange_is_away_for_its_own_publishes_and_no_others(
    settings: Settings, vhost: str
) -> None:
    await asyncio.to_thread(foreign.declare, vhost, "q")
    async with Rabbit(settings, name="test") as rabbit:
        missing = [rabbit.publish(Outgoing("missing", "k", b"x" * 5000)) for _ in range(500)]
        good = [rabbit.publish(answer("q")) for _ in range(200)]
        lost, confirmed = await asyncio.gather(
            asyncio.gather(*missing, return_exceptions=True), asyncio.gather(*good)
        )
        assert {type(error) for error in lost} == {RabbitAway}
        assert set(confirmed) == {Published.CONFIRMED}
        # And when the exchange is declared, publishing works on the same connection
        await asyncio.to_thread(declare_exchange, vhost, "missing")
        await poll(lambda: works(rabbit), what="the exchange to be found")


def declare_exchange(url: str, name: str) -> None:
    with foreign.channel(url) as channel:
        channel.exchange_declare(name, exchange_type="topic", durable=True)


async def works(rabbit: Rabbit) -> bool:
    try:
        out = Outgoing("missing", "k", b"", mandatory=False)
        return await rabbit.publish(out) is Published.CONFIRMED
    except RabbitAway:
        return False


@pytest.mark.parametrize(
    "out",
    [
        pytest.param(answer("q" * 256), id="routing key"),
        pytest.param(answer("æ" * 128), id="routing key in bytes"),
        pytest.param(answer("q", correlation_id="c" * 256), id="correlation id"),
        pytest.param(answer("q", headers={"a": object()}), id="header"),
        pytest.param(answer("q", correlation_id="\ud800"), id="lone surrogate"),
    ],
)
async def test_a_message_that_amqp_cannot_carry_raises_at_once_and_harms_no_other(
    settings: Settings, vhost: str, out: Outgoing
) -> None:
    await asyncio.to_thread(foreign.declare, vhost, "q")
    async with Rabbit(settings, name="test") as rabbit:
        others = [asyncio.ensure_future(rabbit.publish(answer("q"))) for _ in range(20)]
        with pytest.raises((ValueError, TypeError)):
            await rabbit.publish(out)
        assert set(await asyncio.gather(*others)) == {Published.CONFIRMED}


async def test_a_cancelled_publish_harms_no_other(settings: Settings, vhost: str) -> None:
    await asyncio.to_thread(foreign.declare, vhost, "q")
    async with Rabbit(settings, name="test") as rabbit:
        publishes = [asyncio.ensure_future(rabbit.publish(answer("q"))) for _ in range(200)]
        await asyncio.sleep(0)
        for publish in publishes[::2]:
            publish.cancel()
        await asyncio.wait(publishes)
        assert all(publish.cancelled() for publish in publishes[::2])
        assert {publish.result() for publish in publishes[1::2]} == {Published.CONFIRMED}
        assert await rabbit.publish(answer("q")) is Published.CONFIRMED


class Frontend:
    """A pika frontend with direct reply-to that sends one request and reads one answer. It blocks."""

    def __init__(self, url: str) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.answers: list[bytes] = []
        self.channel.basic_consume(
            "amq.rabbitmq.reply-to", lambda _c, _m, _p, body: self.answers.append(body), auto_ack=True
        )
        properties = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to")
        self.channel.basic_publish("", "requests", b"?", properties)

    def receive(self) -> bytes:
        for _ in range(20):
            self.connection.process_data_events(1)
            if self.answers:
                return self.answers.pop()
        raise AssertionError("no answer")


async def test_an_answer_to_direct_reply_to_arrives_and_is_confirmed(settings: Settings, vhost: str) -> None:
    await asyncio.to_thread(foreign.declare, vhost, "requests")
    frontend = await asyncio.to_thread(Frontend, vhost)
    _, properties, _ = await asyncio.to_thread(foreign.get, vhost, "requests")
    async with Rabbit(settings, name="test") as rabbit:
        # When RabbitMQ's own address is answered, and again after its listener is gone
        assert await rabbit.publish(answer(properties.reply_to, b"answer")) is Published.CONFIRMED
        assert await asyncio.to_thread(frontend.receive) == b"answer"
        await asyncio.to_thread(frontend.connection.close)
        assert await rabbit.publish(answer(properties.reply_to, b"late")) is Published.CONFIRMED
    # Then the address was recognised and needed no connection of its own
    assert not is_forged(answer(properties.reply_to))


FORGED = {
    "no key": f"{DIRECT}x",
    "not base64": f"{DIRECT}abc.d",
    "empty": DIRECT,
    "not a process": direct(b"\x83d\x00\x01a"),
    "cut short": direct(PROCESS[:-3]),
    "too long": direct(PROCESS + b"x"),
    "not a node of RabbitMQ's": direct(b"\x83Xv\x00\x0ereply@x7353316" + bytes(12)),
    "three parts": f"{direct(PROCESS)}.x",
    "control characters": f"{DIRECT}\x00é",
}


@pytest.mark.parametrize("address", FORGED.values(), ids=FORGED.keys())
async def test_a_forged_direct_reply_address_harms_no_other_publish(
    settings: Settings, vhost: str, address: str
) -> None:
    # RabbitMQ 3.10.8 closes the whole connection for some of these (docs/rabbitmq.md#t10).
    await asyncio.to_thread(foreign.declare, vhost, "q")
    assert is_forged(answer(address))
    async with Rabbit(settings, name="test") as rabbit:
        first = await rabbit.publish(answer("q"))
        forged, *others = await asyncio.gather(
            rabbit.publish(answer(address)), *(rabbit.publish(answer("q")) for _ in range(20))
        )
        assert forged in (Published.UNROUTABLE, Published.CONFIRMED)
        assert {first, *others} == {Published.CONFIRMED}


async def test_a_well_formed_address_without_a_listener_harms_no_other_publish(
    settings: Settings, vhost: str
) -> None:
    await asyncio.to_thread(foreign.declare, vhost, "q")
    assert not is_forged(answer(direct(PROCESS)))
    async with Rabbit(settings, name="test") as rabbit:
        results = await asyncio.gather(
            rabbit.publish(answer(direct(PROCESS))), *(rabbit.publish(answer("q")) for _ in range(20))
        )
    assert set(results) == {Published.CONFIRMED}


async def test_close_waits_for_unanswered_publishes(settings: Settings, vhost: str) -> None:
    await asyncio.to_thread(foreign.declare, vhost, "q")
    async with Rabbit(settings, name="test") as rabbit:
        publishes = [asyncio.ensure_future(rabbit.publish(answer("q"))) for _ in range(300)]
        await asyncio.sleep(0)
    assert set(await asyncio.gather(*publishes)) == {Published.CONFIRMED}


@pytest.mark.integration
async def test_a_wrong_address_raises_within_the_bound_and_without_the_password(tmp_path: Path) -> None:
    settings = settings_for("amqp://somebody:secret-word@127.0.0.1:1/")
    with pytest.raises(RabbitAway, match=r"not reached within 1 s: connecting") as told:
        async with Rabbit(settings, name="test", start_within=1):
            pass
    assert "secret-word" not in str(told.value)


async def test_a_wrong_password_raises_without_the_password(vhost: str) -> None:
    settings = settings_for(vhost.replace("guest:guest", "guest:secret-word"))
    with pytest.raises(RabbitAway, match=r"ACCESS_REFUSED") as told:
        async with Rabbit(settings, name="test", start_within=2):
            pass
    assert "secret-word" not in str(told.value)


async def test_an_rpc_client_gets_the_answer_to_each_request(settings: Settings, vhost: str) -> None:
    await asyncio.to_thread(foreign.declare, vhost, "requests")
    async with (
        Rabbit(settings, name="test") as rabbit,
        open_rpc_client(settings, "jobnet.answers.test") as box,
    ):

        def take(arrival: Any) -> None:
            out = Outgoing("", arrival.reply_to, arrival.body.upper(), correlation_id=arrival.correlation_id)
            tasks.append(asyncio.ensure_future(rabbit.publish(out)))

        tasks: list[asyncio.Future[Published]] = []
        rabbit.subscribe("requests", 10, take)
        answers = await asyncio.gather(
            *(box.ask(answer("requests", text), 10) for text in (b"a", b"b", b"c"))
        )
        assert answers == [b"A", b"B", b"C"]
        await asyncio.gather(*tasks)


async def test_an_rpc_client_raises_for_no_answer_and_for_no_queue(settings: Settings, vhost: str) -> None:
    await asyncio.to_thread(foreign.declare, vhost, "requests")
    async with open_rpc_client(settings, "jobnet.answers.test") as box:
        assert isinstance(box, RpcClient)
        with pytest.raises(TimeoutError):
            await box.ask(answer("requests"), 0.05)
        with pytest.raises(RabbitAway, match="unroutable"):
            await box.ask(answer("nobody"), 0.05)
