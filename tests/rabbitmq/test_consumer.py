"""The consumer's tasks, pauses, drain and watchdog, on a real RabbitMQ with a fake ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker.rabbitmq import Arrival, Rabbit
from broker.rabbitmq.consumer import Consumer
from config.settings import Settings
from scripts.rabbitmq import RabbitServer
from tests.rabbitmq import foreign
from tests.rabbitmq.conftest import close_connections_of, settings_for
from tests.support import poll

WATCHDOG = {"check_seconds": 0.05, "recover_within_seconds": 0.5, "loop_lag_seconds": 0.2}


class FakeLedger:
    """A ledger that a test sets away and back."""

    def __init__(self) -> None:
        self._away, self._back = asyncio.Event(), asyncio.Event()
        self._back.set()

    @property
    def away(self) -> bool:
        return self._away.is_set()

    def set_away(self, away: bool) -> None:
        (self._away if away else self._back).set()
        (self._back if away else self._away).clear()

    async def wait_until_away(self) -> None:
        await self._away.wait()

    async def wait_until_back(self) -> None:
        await self._back.wait()


class FakeHandler:
    """Acknowledges an arrival once `gate` is set; raises for bodies that start with `bug`."""

    def __init__(self) -> None:
        self.began: list[bytes] = []
        self.ended: list[tuple[bytes, bool]] = []
        self.gate = asyncio.Event()

    async def __call__(self, arrival: Arrival) -> None:
        self.began.append(arrival.body)
        await self.gate.wait()
        if arrival.body.startswith(b"bug"):
            raise RuntimeError("a bug")
        self.ended.append((arrival.body, await arrival.ack()))


class Running:
    """A consumer of the queue `q`, and the calls of its callbacks."""

    def __init__(self, settings: Settings, rabbit: Rabbit, prefetch: int) -> None:
        self.rabbit, self.ledger, self.handler = rabbit, FakeLedger(), FakeHandler()
        self.given_up: list[str] = []
        self.ready: list[bool] = []
        self.consumer = Consumer(
            settings,
            rabbit,
            self.handler,
            queues={"q": prefetch},
            ledger=self.ledger,
            on_give_up=self.given_up.append,
            on_ready=self.ready.append,
        )


@asynccontextmanager
async def consuming(vhost: str, *, prefetch: int = 10, **watchdog: Any) -> AsyncIterator[Running]:
    settings = settings_for(vhost, watchdog={**WATCHDOG, **watchdog})
    async with Rabbit(settings, name=vhost) as rabbit:
        made = Running(settings, rabbit, prefetch)
        async with made.consumer:
            yield made


@pytest.fixture
async def queue(vhost: str) -> Callable[..., Any]:
    """The queue `q`; call it with bodies to publish."""
    await asyncio.to_thread(foreign.declare, vhost, "q")

    async def publish(*bodies: bytes) -> None:
        await asyncio.to_thread(foreign.publish, vhost, "q", *((body, None) for body in bodies))

    return publish


async def left(vhost: str) -> int:
    return await asyncio.to_thread(foreign.depth, vhost, "q")


async def test_arrivals_are_handled_concurrently(vhost: str, queue: Callable[..., Any]) -> None:
    await queue(b"1", b"2", b"3")
    async with consuming(vhost) as setup:
        await poll(lambda: len(setup.handler.began) == 3, what="all three at once")
        assert setup.consumer.in_flight == 3
        setup.handler.gate.set()
        await poll(lambda: len(setup.handler.ended) == 3, what="their ends")
        await poll(lambda: setup.consumer.in_flight == 0, what="nothing in flight")
    assert await left(vhost) == 0


async def test_a_task_outlives_the_channel_it_came_on_and_its_ack_is_dropped(
    vhost: str, queue: Callable[..., Any], rabbit: RabbitServer
) -> None:
    # docs/rabbitmq.md#t1
    await queue(b"1")
    async with consuming(vhost) as setup:
        await poll(lambda: setup.handler.began, what="the arrival")
        await asyncio.to_thread(close_connections_of, rabbit, vhost)
        await poll(lambda: len(setup.handler.began) == 2, what="the redelivery beside it")
        assert setup.consumer.in_flight == 2
        setup.handler.gate.set()
        await poll(lambda: len(setup.handler.ended) == 2, what="both ends")
        assert sorted(setup.handler.ended) == [(b"1", False), (b"1", True)]
        assert setup.consumer.bugs == 0


async def test_a_bug_is_counted_and_its_arrival_is_not_acknowledged(
    vhost: str, queue: Callable[..., Any]
) -> None:
    await queue(b"bug", b"good")
    async with consuming(vhost) as setup:
        setup.handler.gate.set()
        await poll(lambda: setup.consumer.bugs == 1 and setup.handler.ended, what="the bug and the good one")
        assert setup.handler.ended == [(b"good", True)]
        await poll(lambda: setup.consumer.ready, what="readiness in spite of the bug")
    await poll_left(vhost, 1)


async def poll_left(vhost: str, wanted: int) -> None:
    condition: Callable[[], Any] = lambda: left(vhost)  # noqa: E731 - one expression
    for _ in range(200):
        if await condition() == wanted:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{await left(vhost)} messages left instead of {wanted}")


async def test_the_watchdog_gives_up_when_bugs_hold_half_of_the_prefetch(
    vhost: str, queue: Callable[..., Any]
) -> None:
    await queue(b"bug1", b"bug2", b"good")
    async with consuming(vhost, prefetch=4) as setup:
        setup.handler.gate.set()
        await poll(lambda: setup.given_up, what="the watchdog")
        assert setup.given_up == ["bugs hold half of the prefetch of q"]
        assert not setup.consumer.ready


async def test_nothing_is_consumed_while_the_ledger_is_away(vhost: str, queue: Callable[..., Any]) -> None:
    async with consuming(vhost) as setup:
        await poll(lambda: setup.ready == [True], what="ready")
        await queue(b"1")
        await poll(lambda: setup.handler.began, what="an arrival in flight")
        # When it is away
        setup.ledger.set_away(away=True)
        await poll(lambda: setup.ready == [True, False] and not setup.rabbit.alive, what="the pause")
        await queue(b"2")
        # Then the arrival in flight can still end, and the next one waits
        setup.handler.gate.set()
        await poll(lambda: setup.handler.ended == [(b"1", True)], what="the end of the arrival in flight")
        assert setup.handler.began == [b"1"]
        # And consuming goes on when the ledger is back
        setup.ledger.set_away(away=False)
        await poll(lambda: setup.handler.ended == [(b"1", True), (b"2", True)], what="the second")
        await poll(lambda: setup.ready == [True, False, True], what="ready again")
        assert setup.given_up == []


async def test_the_watchdog_does_not_give_up_while_the_ledger_is_away(
    vhost: str, queue: Callable[..., Any]
) -> None:
    async with consuming(vhost, recover_within_seconds=0.1) as setup:
        setup.ledger.set_away(away=True)
        await poll(lambda: not setup.rabbit.alive, what="the pause")
        began = time.monotonic()
        await poll(lambda: time.monotonic() - began > 0.5, what="five times the bound")
        assert setup.given_up == []


async def test_a_drain_lets_what_is_in_flight_end_and_takes_nothing_new(
    vhost: str, queue: Callable[..., Any]
) -> None:
    await queue(b"1")
    async with consuming(vhost) as setup:
        await poll(lambda: setup.handler.began, what="the arrival")
        draining = asyncio.create_task(setup.consumer.drain(10))
        await poll(lambda: not setup.rabbit.alive, what="the cancel")
        await queue(b"2")
        setup.handler.gate.set()
        assert await draining == 0
        assert setup.handler.ended == [(b"1", True)]
        assert setup.ready[-1] is False
    assert await left(vhost) == 1


async def test_a_drain_cuts_off_what_does_not_end_and_leaves_it_unacknowledged(
    vhost: str, queue: Callable[..., Any]
) -> None:
    await queue(b"1", b"2")
    async with consuming(vhost) as setup:
        await poll(lambda: len(setup.handler.began) == 2, what="the arrivals")
        assert await setup.consumer.drain(0.1) == 2
        assert setup.consumer.in_flight == 0
        assert setup.consumer.bugs == 0
    await poll_left(vhost, 2)


async def test_leaving_without_a_drain_leaves_no_task_behind(vhost: str, queue: Callable[..., Any]) -> None:
    await queue(b"1")
    before = asyncio.all_tasks()
    async with consuming(vhost) as setup:
        await poll(lambda: setup.handler.began, what="the arrival")
    await poll(lambda: asyncio.all_tasks() <= before, what="no task left")


async def test_the_watchdog_gives_up_when_a_consumer_does_not_come_back(
    vhost: str, queue: Callable[..., Any]
) -> None:
    async with consuming(vhost) as setup:
        await poll(lambda: setup.ready == [True], what="ready")
        await asyncio.to_thread(foreign.delete, vhost, "q")
        await poll(lambda: setup.ready == [True, False], what="not ready")
        await poll(lambda: setup.given_up, what="the watchdog")
        assert setup.given_up == ["no consumer on q"]


async def test_the_watchdog_does_not_give_up_when_a_consumer_comes_back_in_time(
    vhost: str, queue: Callable[..., Any], rabbit: RabbitServer
) -> None:
    async with consuming(vhost, recover_within_seconds=20) as setup:
        await poll(lambda: setup.ready == [True], what="ready")
        await asyncio.to_thread(foreign.delete, vhost, "q")
        await poll(lambda: setup.ready == [True, False], what="not ready")
        await asyncio.to_thread(foreign.declare, vhost, "q")
        await poll(lambda: setup.ready == [True, False, True], what="ready again")
        assert setup.given_up == []


class FakeLogger:
    """A logger that keeps the names of its events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __getattr__(self, _level: str) -> Callable[..., None]:
        return lambda event, **_facts: self.events.append(event)


async def test_a_blocked_event_loop_is_logged(
    vhost: str, queue: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = FakeLogger()
    monkeypatch.setattr("broker.rabbitmq.consumer.log", logger)
    async with consuming(vhost) as setup:
        await poll(lambda: setup.ready == [True], what="ready")
        assert "loop-lag" not in logger.events
        time.sleep(0.5)  # noqa: ASYNC251 - the fault that is being tested
        await poll(lambda: "loop-lag" in logger.events, what="the line")


async def test_readiness_that_could_not_be_reported_is_reported_again(
    vhost: str, queue: Callable[..., Any]
) -> None:
    settings = settings_for(vhost, watchdog=WATCHDOG)
    told: list[bool] = []

    async def tell(ready: bool) -> None:
        told.append(ready)
        if len(told) == 1:
            raise RuntimeError("the ledger is away")

    async with Rabbit(settings, name="test") as rabbit:
        switch, given_up = FakeLedger(), list[str]()
        consumer = Consumer(
            settings,
            rabbit,
            FakeHandler(),
            queues={"q": 1},
            ledger=switch,
            on_give_up=given_up.append,
            on_ready=tell,
        )
        async with consumer:
            await poll(lambda: told[:2] == [True, True], what="the second try")
            assert given_up == []


async def test_a_cancelled_handler_is_a_bug_except_during_a_drain(
    vhost: str, queue: Callable[..., Any]
) -> None:
    settings = settings_for(vhost, watchdog=WATCHDOG)

    async def cancelled(_arrival: Arrival) -> None:
        raise asyncio.CancelledError

    await queue(b"1")
    async with Rabbit(settings, name="test") as rabbit:
        consumer = Consumer(
            settings,
            rabbit,
            cancelled,
            queues={"q": 10},
            ledger=FakeLedger(),
            on_give_up=print,
            on_ready=print,
        )
        async with consumer:
            await poll(lambda: consumer.bugs == 1, what="the bug")
