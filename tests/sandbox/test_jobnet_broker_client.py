"""Jobnet's AMQP client: each request gets its answer, a lost connection sends again, a missing answer is an error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sandbox.jobnet import broker_client
from sandbox.jobnet.broker_client import OUTCOMES, BrokerClient, NoAnswer
from tests.sandbox.conftest import Echo
from tests.support import poll


async def test_each_request_gets_its_own_answer(vhost: str, echo: Echo) -> None:
    async with BrokerClient(vhost) as client:
        asked = [client.ask("query.times.v1", {"requestId": str(n)}) for n in range(5)]
        answers = await asyncio.gather(*asked)
    assert [answer["body"]["requestId"] for answer in answers] == list("01234")
    assert {(answer["type"], answer["key"]) for answer in answers} == {("query.times.v1", "query.times")}
    assert all(name.startswith("amq.rabbitmq.reply-to.") for name in echo.reply_to)


async def test_a_second_answer_is_ignored(vhost: str, echo: Echo) -> None:
    echo.copies = 2
    async with BrokerClient(vhost) as client:
        for n in range(3):
            answer = await client.ask("query.times.v1", {"n": n})
            assert answer["body"] == {"n": n}


async def test_a_missing_answer_raises_no_answer(vhost: str, echo: Echo) -> None:
    echo.copies = 0
    async with BrokerClient(vhost) as client:
        with pytest.raises(NoAnswer):
            await client.ask("query.times.v1", {}, timeout_s=0.3)


async def test_a_connection_lost_while_waiting_sends_the_same_request_again(vhost: str, echo: Echo) -> None:
    echo.copies = 0
    async with BrokerClient(vhost) as client:
        waiting = asyncio.create_task(client.ask("booking.book.v1", {"requestId": "a"}))
        await poll(lambda: len(echo.reply_to) == 1, what="the first sending")
        echo.copies = 1
        assert client._current is not None
        await client._current.connection.close()
        answer = await waiting
    assert answer["body"] == {"requestId": "a"}
    assert len(echo.reply_to) == 2
    assert len(set(echo.reply_to)) == 2  # the answer comes back on the new connection


async def test_no_more_wait_than_the_bound(vhost: str, echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_client, "MAX_WAITING", 1)
    echo.copies = 0
    async with BrokerClient(vhost) as client:
        waiting = asyncio.create_task(client.ask("query.times.v1", {}, timeout_s=20))
        await poll(lambda: echo.reply_to, what="the first sending")
        with pytest.raises(NoAnswer, match="too many"):
            await client.ask("query.times.v1", {}, timeout_s=20)
        waiting.cancel()


async def test_events_of_bookings_are_received(vhost: str, echo: Echo) -> None:
    events: list[Any] = []
    async with BrokerClient(vhost) as client:
        client.on_event = events.append
        await echo.publish("report.dead", {"requestId": "0"}, exchange=OUTCOMES)
        await echo.publish("booking.done", {"requestId": "1"}, exchange=OUTCOMES)
        await poll(lambda: events, what="the event")
    assert events == [{"requestId": "1"}]
