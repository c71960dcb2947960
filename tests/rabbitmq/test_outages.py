"""A RabbitMQ that is killed, blocked by an alarm, or silent. On a node of its own, which the tests may kill."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from broker.errors import RabbitAway
from broker.rabbitmq import Outgoing, Published, Rabbit
from scripts.rabbitmq import RabbitNode
from tests.proxy import TcpProxy
from tests.rabbitmq import foreign
from tests.rabbitmq.conftest import Seen, settings_for
from tests.support import poll

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def own_vhost(own_node: RabbitNode) -> str:
    return own_node.create_vhost(f"test-{uuid4().hex[:12]}")


async def declared(node: RabbitNode, url: str, *queues: str) -> None:
    """Declare queues that survive a kill: RabbitMQ 3.10 writes its list of quorum queues with a delay."""
    await asyncio.to_thread(foreign.declare, url, *queues)
    await asyncio.to_thread(node.write_out)


async def test_a_killed_node_that_returns_is_consumed_and_published_to_again(
    own_node: RabbitNode, own_vhost: str
) -> None:
    # Given an arrival in flight
    seen = Seen()
    await declared(own_node, own_vhost, "q", "out")
    await asyncio.to_thread(foreign.publish, own_vhost, "q", (b"1", None))
    async with Rabbit(settings_for(own_vhost), name="test") as rabbit:
        rabbit.subscribe("q", 10, seen)
        await poll(lambda: seen, what="the arrival")
        # When the node is killed
        await asyncio.to_thread(own_node.kill)
        await poll(lambda: not rabbit.connected and not rabbit.alive, what="the loss")
        with pytest.raises(RabbitAway):
            await rabbit.publish(Outgoing("", "out", b"too soon"))
        assert await seen[0].ack() is False
        # And comes back, while a publish is waiting for it
        await asyncio.to_thread(own_node.start)
        await poll(lambda: len(seen) == 2, timeout=60, what="the redelivery")
        assert seen[1].redelivered
        assert await seen[1].ack()
        assert await rabbit.publish(Outgoing("", "out", b"now")) is Published.CONFIRMED
    assert (await asyncio.to_thread(foreign.get, own_vhost, "out"))[2] == b"now"


async def test_every_publish_in_flight_at_a_kill_ends_and_what_was_confirmed_is_there(
    own_node: RabbitNode, own_vhost: str
) -> None:
    await declared(own_node, own_vhost, "out")
    confirmed: set[bytes] = set()
    ended = 0

    async def publish(number: int) -> None:
        nonlocal ended
        try:
            if await rabbit.publish(Outgoing("", "out", b"%d" % number)) is Published.CONFIRMED:
                confirmed.add(b"%d" % number)
        except RabbitAway:
            pass
        ended += 1

    async with Rabbit(settings_for(own_vhost), name="test") as rabbit:
        tasks = [asyncio.create_task(publish(number)) for number in range(2000)]
        await poll(lambda: len(confirmed) > 50, what="some confirms")
        await asyncio.to_thread(own_node.kill)
        await poll(lambda: ended == 2000, timeout=30, what="every publish to end")
        await asyncio.gather(*tasks)
    await asyncio.to_thread(own_node.start)
    there = await asyncio.to_thread(drain, own_vhost, "out")
    assert confirmed
    assert confirmed <= there


def drain(url: str, queue: str) -> set[bytes]:
    """Remove all messages from the queue and return their bodies."""
    found = set()
    with foreign.channel(url) as channel:
        while (got := channel.basic_get(queue, auto_ack=True))[0]:
            found.add(got[2])
    return found


async def test_a_memory_alarm_times_publishes_out_and_they_work_when_it_is_over(
    own_node: RabbitNode, own_vhost: str
) -> None:
    seen = Seen()
    await asyncio.to_thread(foreign.declare, own_vhost, "q", "out")
    settings = settings_for(own_vhost, rabbitmq={"publish_timeout_seconds": 2})
    async with Rabbit(settings, name="test") as rabbit:
        rabbit.subscribe("q", 10, seen)
        assert await rabbit.publish(Outgoing("", "q", b"before")) is Published.CONFIRMED
        await poll(lambda: seen, what="the arrival")
        # When there is an alarm
        await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "0.00001")
        try:
            results = await asyncio.gather(
                *(rabbit.publish(Outgoing("", "out", b"%d" % n)) for n in range(50)), return_exceptions=True
            )
            again = await asyncio.gather(
                *(rabbit.publish(Outgoing("", "out", b"again")) for _ in range(50)), return_exceptions=True
            )
            # Then publishes end, and consuming and acknowledging go on
            assert {type(error) for error in (*results, *again)} == {RabbitAway}
            assert rabbit.alive == {"q"}
            assert await seen[0].ack()
        finally:
            await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "absolute", "1GB")

        async def works() -> bool:
            try:
                return await rabbit.publish(Outgoing("", "out", b"after")) is Published.CONFIRMED
            except RabbitAway:
                return False

        await poll(works, timeout=30, what="publishing after the alarm")
    # Few publishes arrived late, because nothing was sent while RabbitMQ said that it is blocked
    bodies = await asyncio.to_thread(drain, own_vhost, "out")
    assert b"after" in bodies
    assert b"again" not in bodies


async def test_a_silent_connection_is_closed_and_reopened(own_node: RabbitNode, own_vhost: str) -> None:
    # Given a proxy between us and RabbitMQ, and a heartbeat of a second
    at = urlsplit(own_vhost)
    seen = Seen()
    await asyncio.to_thread(foreign.declare, own_vhost, "q")
    await asyncio.to_thread(foreign.publish, own_vhost, "q", (b"1", None))
    async with TcpProxy("127.0.0.1", at.port or 0) as proxy:
        url = own_vhost.replace(f":{at.port}/", f":{proxy.port}/")
        settings = settings_for(url, rabbitmq={"heartbeat_seconds": 1, "publish_timeout_seconds": 2})
        async with Rabbit(settings, name="test") as rabbit:
            rabbit.subscribe("q", 10, seen)
            await poll(lambda: seen, what="the arrival")
            # When nothing passes any more, with a publish in flight
            proxy.freeze()
            with pytest.raises(RabbitAway):
                await rabbit.publish(Outgoing("", "q", b"2"))
            await poll(lambda: seen[0].lost, timeout=30, what="the silence to be noticed")
            # Then everything works again with the network
            proxy.freeze(False)
            proxy.cut()
            await poll(lambda: rabbit.connected and rabbit.alive, timeout=30, what="new connections")
            assert await rabbit.publish(Outgoing("", "q", b"3")) is Published.CONFIRMED
            await poll(lambda: b"3" in seen.bodies(), what="the new arrival")
            assert seen[1].redelivered


async def test_a_publish_without_a_connection_waits_for_one(own_node: RabbitNode, own_vhost: str) -> None:
    at = urlsplit(own_vhost)
    await asyncio.to_thread(foreign.declare, own_vhost, "out")
    async with TcpProxy("127.0.0.1", at.port or 0) as proxy:
        settings = settings_for(own_vhost.replace(f":{at.port}/", f":{proxy.port}/"))
        async with Rabbit(settings, name="test") as rabbit:
            proxy.refuse()

            async def waiting() -> asyncio.Task[Published] | None:
                """A publish that waits. Until the loss is noticed a publish fails with the connection."""
                task = asyncio.create_task(rabbit.publish(Outgoing("", "out", b"1")))
                done, _ = await asyncio.wait([task], timeout=0.2)
                assert not done or isinstance(task.exception(), RabbitAway)
                return None if done else task

            publishing = await poll(waiting, what="a publish that waits")
            proxy.refuse(False)
            assert await publishing is Published.CONFIRMED


def set_consumer_timeout(node: RabbitNode, timeout_ms: int, check_every_ms: int) -> None:
    """Set how long this node waits for an acknowledgement, and how often it checks."""
    wanted = f"[{{consumer_timeout, {timeout_ms}}}, {{channel_tick_interval, {check_every_ms}}}]"
    node.ctl("eval", f"[application:set_env(rabbit, K, V) || {{K, V}} <- {wanted}].")


@pytest.fixture
def impatient_node(own_node: RabbitNode) -> Iterator[RabbitNode]:
    """A RabbitMQ with a consumer timeout of one second."""
    set_consumer_timeout(own_node, 1000, 500)
    yield own_node
    set_consumer_timeout(own_node, 1_800_000, 60_000)


async def test_what_was_held_too_long_comes_again_and_its_late_ack_harms_nothing(
    impatient_node: RabbitNode,
) -> None:
    seen = Seen()
    url = await asyncio.to_thread(impatient_node.create_vhost, "held")
    await asyncio.to_thread(foreign.declare, url, "q")
    async with Rabbit(settings_for(url), name="test") as ours:
        ours.subscribe("q", 10, seen)
        await asyncio.to_thread(foreign.publish, url, "q", (b"1", None))
        # When RabbitMQ closes the channel (before 4.3), or cancels the consumer on it
        await poll(lambda: len(seen) == 2, timeout=60, what="the second arrival")
        # Then it is consumed again, the old acknowledgement has no effect, and the channel works
        assert [arrival.redelivered for arrival in seen] == [False, True]
        await seen[0].ack()
        assert await seen[1].ack()
        await asyncio.to_thread(foreign.publish, url, "q", (b"2", None))
        await poll(lambda: len(seen) == 3, what="the next")
        assert (seen[2].body, seen[2].redelivered) == (b"2", False)
        assert await seen[2].ack()
        assert ours.alive == {"q"}
