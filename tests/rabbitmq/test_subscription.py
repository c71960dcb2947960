"""Consuming from a real RabbitMQ: acknowledgements, pauses, deleted queues, unreadable properties."""

from __future__ import annotations

import asyncio
import struct
import time
from datetime import UTC, datetime

from pamqp.commands import Basic
from pika.spec import BasicProperties

from broker.rabbitmq import Outgoing, Published, Rabbit
from config.settings import Settings
from scripts.rabbitmq import RabbitServer
from tests.rabbitmq import foreign
from tests.rabbitmq.conftest import Seen, close_connections_of
from tests.support import poll

FLAGS = Basic.Properties.flags


async def consuming(rabbit: Rabbit, *queues: str) -> None:
    await poll(lambda: rabbit.alive >= set(queues), what=f"consumers on {queues}")


async def test_an_arrival_has_the_sent_properties_and_is_gone_after_its_ack(
    settings: Settings, vhost: str
) -> None:
    seen = Seen()
    await asyncio.to_thread(foreign.declare, vhost, "q")
    properties = BasicProperties(
        "application/json", None, {"traceparent": "00-1"}, 2, None, "c", "r", None, "m"
    )
    properties.type, properties.timestamp = "booking.book.v1", int(time.time())
    await asyncio.to_thread(foreign.publish, vhost, "q", (b"body", properties))
    async with Rabbit(settings, name="test") as rabbit:
        rabbit.subscribe("q", 10, seen)
        await poll(lambda: seen, what="the arrival")
        (arrival,) = seen
        assert (arrival.queue, arrival.body, arrival.type) == ("q", b"body", "booking.book.v1")
        assert (arrival.message_id, arrival.correlation_id, arrival.reply_to) == ("m", "c", "r")
        assert (arrival.content_type, arrival.redelivered) == ("application/json", False)
        assert arrival.headers["traceparent"] == "00-1"
        assert await arrival.ack()
    assert await asyncio.to_thread(foreign.depth, vhost, "q") == 0


async def test_an_unacknowledged_message_is_redelivered_and_counted(settings: Settings, vhost: str) -> None:
    first, second = Seen(), Seen()
    await asyncio.to_thread(foreign.declare, vhost, "q")
    await asyncio.to_thread(foreign.publish, vhost, "q", (b"1", None))
    async with Rabbit(settings, name="test") as rabbit:
        rabbit.subscribe("q", 10, first)
        await poll(lambda: first, what="the first time")
    async with Rabbit(settings, name="test") as rabbit:
        rabbit.subscribe("q", 10, second)
        await poll(lambda: second, what="the second time")
    assert (first[0].redelivered, first[0].delivery_count) == (False, 0)
    assert (second[0].redelivered, second[0].delivery_count) == (True, 1)
    assert await first[0].ack() is False


async def test_the_prefetch_bounds_what_is_in_flight(settings: Settings, vhost: str) -> None:
    seen = Seen()
    await asyncio.to_thread(foreign.declare, vhost, "q")
    await asyncio.to_thread(foreign.publish, vhost, "q", *[(b"%d" % n, None) for n in range(5)])
    async with Rabbit(settings, name="test") as rabbit:
        rabbit.subscribe("q", 2, seen)
        await poll(lambda: len(seen) == 2, what="two arrivals")
        assert await asyncio.to_thread(foreign.depth, vhost, "q") == 3
        await seen[0].ack()
        await poll(lambda: len(seen) == 3, what="one more for one acknowledged")


async def test_a_missing_queue_does_not_stop_the_others_and_is_consumed_when_it_is_declared(
    settings: Settings, vhost: str
) -> None:
    here, there = Seen(), Seen()
    await asyncio.to_thread(foreign.declare, vhost, "here")
    async with Rabbit(settings, name="test") as rabbit:
        rabbit.subscribe("there", 10, there)
        rabbit.subscribe("here", 10, here)
        await asyncio.to_thread(foreign.publish, vhost, "here", (b"1", None))
        await poll(lambda: here, what="the arrival on the first queue")
        assert rabbit.expected == {"here", "there"}
        # An arrival may be there before RabbitMQ has confirmed the consumer.
        await poll(lambda: rabbit.alive == {"here"}, what="the neighbour's consumer to be confirmed")
        await asyncio.to_thread(foreign.declare, vhost, "there")
        await asyncio.to_thread(foreign.publish, vhost, "there", (b"2", None))
        await poll(lambda: there, what="the late queue's arrival")


async def test_a_deleted_queue_is_consumed_again_when_it_is_back_and_the_others_keep_their_channels(
    settings: Settings, vhost: str
) -> None:
    gone, stays = Seen(), Seen()
    await asyncio.to_thread(foreign.declare, vhost, "gone", "stays")
    await asyncio.to_thread(foreign.publish, vhost, "stays", (b"1", None))
    async with Rabbit(settings, name="test") as rabbit:
        rabbit.subscribe("gone", 10, gone)
        rabbit.subscribe("stays", 10, stays)
        await consuming(rabbit, "gone", "stays")
        await poll(lambda: stays, what="an arrival in flight")
        # When the queue is deleted
        await asyncio.to_thread(foreign.delete, vhost, "gone")
        await poll(lambda: rabbit.alive == {"stays"}, what="the loss to be noticed")
        # Then it is consumed again, and the other queue's arrival can still be acknowledged
        await asyncio.to_thread(foreign.declare, vhost, "gone")
        await asyncio.to_thread(foreign.publish, vhost, "gone", (b"2", None))
        await poll(lambda: gone.bodies() == [b"2"], what="the arrival of the new queue")
        assert await stays[0].ack()


async def test_during_a_pause_arrivals_in_flight_can_be_acknowledged_and_a_resume_brings_the_rest(
    settings: Settings, vhost: str
) -> None:
    seen = Seen()
    await asyncio.to_thread(foreign.declare, vhost, "q")
    await asyncio.to_thread(foreign.publish, vhost, "q", (b"1", None))
    async with Rabbit(settings, name="test") as rabbit:
        rabbit.subscribe("q", 10, seen)
        await poll(lambda: seen, what="the first")
        await rabbit.pause()
        assert (rabbit.alive, rabbit.expected) == (frozenset(), frozenset())
        await asyncio.to_thread(foreign.publish, vhost, "q", (b"2", None))
        assert await seen[0].ack()
        assert await asyncio.to_thread(foreign.depth, vhost, "q") == 1
        assert seen.bodies() == [b"1"]
        rabbit.resume()
        await poll(lambda: seen.bodies() == [b"1", b"2"], what="the second")
        assert not seen[1].redelivered


async def test_messages_that_arrive_during_a_cancel_are_still_handed_over(
    settings: Settings, vhost: str
) -> None:
    # Given many messages, more than one prefetch
    seen = Seen()
    await asyncio.to_thread(foreign.declare, vhost, "q")
    await asyncio.to_thread(foreign.publish, vhost, "q", *[(b"%d" % n, None) for n in range(300)])
    async with Rabbit(settings, name="test") as rabbit:
        rabbit.subscribe("q", 200, seen)
        await poll(lambda: seen, what="the first of them")
        # When it is paused in the middle of the stream
        await rabbit.pause()
        # Then every message is either with us or in the queue
        handed = len(seen)
        assert all([await arrival.ack() for arrival in seen])
        assert len(seen) == handed
    await depth_is(vhost, 300 - handed)
    assert sorted(map(int, seen.bodies())) == list(range(handed))


async def depth_is(vhost: str, wanted: int) -> None:
    """Wait for so many messages in the queue."""

    async def there() -> bool:
        return await asyncio.to_thread(foreign.depth, vhost, "q") == wanted

    await poll(there, timeout=10, what=f"{wanted} messages left")


async def test_resuming_at_once_after_a_pause_consumes_again(settings: Settings, vhost: str) -> None:
    seen = Seen()
    await asyncio.to_thread(foreign.declare, vhost, "q")
    async with Rabbit(settings, name="test") as rabbit:
        rabbit.subscribe("q", 10, seen)
        for _ in range(5):
            await rabbit.pause()
            rabbit.resume()
        await asyncio.to_thread(foreign.publish, vhost, "q", (b"1", None))
        await poll(lambda: seen, what="the arrival")


async def test_a_failing_callback_harms_neither_the_channel_nor_the_next_arrival(
    settings: Settings, vhost: str
) -> None:
    seen = Seen()

    def take(arrival: object) -> None:
        seen(arrival)  # type: ignore[arg-type]
        if len(seen) == 1:
            raise RuntimeError("a bug")

    await asyncio.to_thread(foreign.declare, vhost, "q")
    await asyncio.to_thread(foreign.publish, vhost, "q", (b"1", None), (b"2", None))
    async with Rabbit(settings, name="test") as rabbit:
        rabbit.subscribe("q", 10, take)
        await poll(lambda: len(seen) == 2, what="both")
        assert await seen[0].ack()


# RabbitMQ 3.10.8 lets these through; it refuses tables that it cannot read itself.
UNREADABLE = {
    "timestamp 2**63": (FLAGS["timestamp"], struct.pack(">Q", 2**63)),
    "timestamp max": (FLAGS["timestamp"], b"\xff" * 8),
    "type not UTF-8": (FLAGS["message_type"], foreign.short(b"\xff\xfe")),
    "header name not UTF-8": (FLAGS["headers"], foreign.table(b"\x02\xff\xfeV")),
    "header time": (FLAGS["headers"], foreign.table(b"\x01aT" + b"\xff" * 8)),
    "header bytes": (FLAGS["headers"], foreign.table(b"\x01aS\x00\x00\x00\x01\xff")),
    "deep headers": (FLAGS["headers"], foreign.nested(5000)),
    "many headers": (
        FLAGS["headers"],
        foreign.table(b"".join(b"\x03%03dV" % (n % 999) for n in range(15_000))),
    ),
    "decimal": (FLAGS["headers"], foreign.table(b"\x01aD\xff\xff\xff\xff\xff")),
    "empty strings": (FLAGS["message_type"] | FLAGS["reply_to"] | FLAGS["message_id"], b"\0\0\0"),
    "delivery count": (FLAGS["headers"], foreign.table(b"\x10x-delivery-countS\x00\x00\x00\x01x")),
    "priority": (FLAGS["priority"], b"\xff"),
}


async def test_messages_with_unreadable_properties_arrive_in_order_on_the_same_connection(
    settings: Settings, vhost: str
) -> None:
    # Given each unreadable property, followed by a valid message
    seen = Seen()
    await asyncio.to_thread(foreign.declare, vhost, "q")
    good = BasicProperties(type="booking.book.v1", reply_to="r", timestamp=int(datetime.now(UTC).timestamp()))
    sent = [
        message
        for name, (flags, data) in UNREADABLE.items()
        for message in ((name.encode(), foreign.RawProperties(flags, data)), (b"good", good))
    ]
    await asyncio.to_thread(foreign.publish, vhost, "q", *sent)
    async with Rabbit(settings, name="test") as rabbit:
        # When they are consumed
        rabbit.subscribe("q", 100, seen)
        await poll(lambda: len(seen) >= len(sent), what="all of them")
        # Then each came once, the valid ones whole, and all can be acknowledged on the same channel. Quorum queues of
        # RabbitMQ 4 deliver a message with a high priority before the others (docs/rabbitmq.md#t24).
        assert sorted(seen.bodies()) == sorted(body for body, _ in sent)
        assert [b for b in seen.bodies() if b != b"priority"] == [b for b, _ in sent if b != b"priority"]
        assert not any(arrival.redelivered for arrival in seen)
        assert {(a.type, a.reply_to) for a in seen if a.body == b"good"} == {("booking.book.v1", "r")}
        assert all(a.type is None and a.reply_to is None for a in seen if a.body != b"good")
        assert all([await arrival.ack() for arrival in seen])


async def test_a_body_of_ten_megabytes_arrives_and_can_be_acknowledged(
    settings: Settings, vhost: str
) -> None:
    seen = Seen()
    await asyncio.to_thread(foreign.declare, vhost, "q")
    await asyncio.to_thread(foreign.publish, vhost, "q", (b"x" * 10_000_000, None), (b"", None))
    async with Rabbit(settings, name="test") as rabbit:
        rabbit.subscribe("q", 10, seen)
        await poll(lambda: len(seen) == 2, what="both")
        assert [len(b) for b in seen.bodies()] == [10_000_000, 0]
        assert all([await arrival.ack() for arrival in seen])


async def test_connections_closed_by_an_operator_are_reopened_and_old_acks_are_dropped(
    settings: Settings, vhost: str, rabbit: RabbitServer
) -> None:
    seen = Seen()
    await asyncio.to_thread(foreign.declare, vhost, "q")
    await asyncio.to_thread(foreign.publish, vhost, "q", (b"1", None))
    async with Rabbit(settings, name=vhost) as ours:
        ours.subscribe("q", 10, seen)
        await poll(lambda: seen, what="the arrival")
        # When an operator closes our connections
        await asyncio.to_thread(close_connections_of, rabbit, vhost)
        await poll(lambda: seen[0].lost, what="the loss")
        # Then the message comes again on a new one, and the old right to acknowledge it is void
        assert await seen[0].ack() is False
        await poll(lambda: len(seen) == 2 and ours.connected, what="the redelivery")
        assert seen[1].redelivered
        assert await seen[1].ack()
        assert await ours.publish(Outgoing("", "q", b"2")) is Published.CONFIRMED
