"""The Jobnet page as a client of RabbitMQ: an answer is found again, a lost connection asks again, no answer is said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sandbox.jobnet import broker_client
from sandbox.jobnet.broker_client import OUTCOMES, BrokerClient, NoAnswer
from tests.sandbox.conftest import Echo
from tests.support import poll


async def test_each_asker_gets_the_answer_to_its_own_request(vhost: str, echo: Echo) -> None:
    async with BrokerClient(vhost) as line:
        asked = [line.ask("query.times.v1", {"requestId": str(n)}) for n in range(5)]
        answers = await asyncio.gather(*asked)
    assert [answer["body"]["requestId"] for answer in answers] == list("01234")
    assert {(answer["type"], answer["key"]) for answer in answers} == {("query.times.v1", "query.times")}
    assert all(name.startswith("amq.rabbitmq.reply-to.") for name in echo.reply_to)


async def test_a_second_answer_disturbs_nobody(vhost: str, echo: Echo) -> None:
    echo.copies = 2
    async with BrokerClient(vhost) as line:
        for n in range(3):
            answer = await line.ask("query.times.v1", {"n": n})
            assert answer["body"] == {"n": n}


async def test_when_no_answer_comes_that_is_said_in_time(vhost: str, echo: Echo) -> None:
    echo.copies = 0
    async with BrokerClient(vhost) as line:
        with pytest.raises(NoAnswer):
            await line.ask("query.times.v1", {}, patience_s=0.3)


async def test_a_connection_lost_while_waiting_sends_the_same_request_again(vhost: str, echo: Echo) -> None:
    echo.copies = 0
    async with BrokerClient(vhost) as line:
        waiting = asyncio.create_task(line.ask("booking.book.v1", {"requestId": "a"}))
        await poll(lambda: len(echo.reply_to) == 1, what="the first sending")
        echo.copies = 1
        assert line._line is not None
        await line._line.connection.close()
        answer = await waiting
    assert answer["body"] == {"requestId": "a"}
    assert len(echo.reply_to) == 2
    assert len(set(echo.reply_to)) == 2  # the answer comes back on the new connection


async def test_no_more_wait_than_the_bound(vhost: str, echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_client, "MOST_WAITING", 1)
    echo.copies = 0
    async with BrokerClient(vhost) as line:
        waiting = asyncio.create_task(line.ask("query.times.v1", {}, patience_s=20))
        await poll(lambda: echo.reply_to, what="the first sending")
        with pytest.raises(NoAnswer, match="too many"):
            await line.ask("query.times.v1", {}, patience_s=20)
        waiting.cancel()


async def test_outcomes_of_bookings_are_heard(vhost: str, echo: Echo) -> None:
    heard: list[Any] = []
    async with BrokerClient(vhost) as line:
        line.heard = heard.append
        await echo.publish("report.dead", {"requestId": "0"}, exchange=OUTCOMES)
        await echo.publish("booking.done", {"requestId": "1"}, exchange=OUTCOMES)
        await poll(lambda: heard, what="the event")
    assert heard == [{"requestId": "1"}]
