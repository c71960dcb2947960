"""The helper functions of connection.py. No server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from broker.errors import BrokerError, RabbitAway
from broker.rabbitmq.connection import Backoff, close_quietly, translate_errors, wait_for_first
from tests.rabbitmq.conftest import settings_for


async def doing(future: asyncio.Future[None]) -> None:
    with translate_errors("publishing"):
        await future


@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(lambda future: future.cancel(), id="cancelled by the library"),
        pytest.param(lambda future: future.set_exception(asyncio.CancelledError), id="its CancelledError"),
        pytest.param(lambda future: future.set_exception(Exception), id="its bare Exception"),
        pytest.param(lambda future: future.set_exception(ValueError("frame")), id="its ValueError"),
        pytest.param(lambda future: future.set_exception(ConnectionResetError()), id="a reset"),
        pytest.param(lambda future: future.set_exception(TimeoutError()), id="a timeout"),
    ],
)
async def test_each_exception_of_the_library_becomes_rabbit_away_with_its_cause(
    lose: Callable[[asyncio.Future[None]], object],
) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(doing(future))
    await asyncio.sleep(0)
    lose(future)
    with pytest.raises(RabbitAway) as away:
        await task
    assert away.value.__cause__ is not None


async def test_a_cancellation_of_the_task_and_broker_errors_are_not_translated() -> None:
    task = asyncio.create_task(doing(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(BrokerError, match="ours"), translate_errors("publishing"):
        raise BrokerError("ours")


async def test_a_timeout_inside_the_translation_is_rabbit_away() -> None:
    with pytest.raises(RabbitAway, match="no answer in time"), translate_errors("publishing"):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_close_quietly_ignores_errors() -> None:
    async def gone() -> None:
        raise RuntimeError("closed")

    await close_quietly(gone())


async def test_wait_for_first_returns_at_the_first_and_cancels_the_others() -> None:
    before = asyncio.all_tasks()
    event, other = asyncio.Event(), asyncio.Event()
    event.set()
    await wait_for_first(event.wait(), other.wait())
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before


def test_pauses_grow_with_jitter_between_their_bounds_and_can_be_reset() -> None:
    limits = {"reconnect_min_seconds": 0.5, "reconnect_max_seconds": 10}
    backoff = Backoff(settings_for("amqp://a:b@h/", rabbitmq=limits).rabbitmq)
    pauses = [backoff.next() for _ in range(200)]
    assert all(0.5 <= pause <= 10 for pause in pauses)
    assert pauses[0] <= 1
    assert pauses[1] <= 2
    assert len(set(pauses)) > 150
    assert max(pauses) > 5
    backoff.reset()
    assert backoff.next() <= 1
