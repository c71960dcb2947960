"""The sandbox's frontend against a real RabbitMQ, with a stand-in for the broker (Echo)."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.frontend import OUTCOMES, Frontend
from tests.sandbox.conftest import Echo


async def test_requests_are_answered_by_direct_reply_and_at_a_queue(vhost: str, echo: Echo) -> None:
    async with Frontend(vhost) as frontend:
        asked = [
            frontend.ask("booking.book", "booking.book.v1", b'{"n": %d}' % n, mark=str(n), wait_s=20)
            for n in range(4)
        ]
        answers = [answer for _, answer in await asyncio.gather(*asked)]
    assert [answer["body"]["n"] for answer in answers] == [0, 1, 2, 3]
    assert {answer["key"] for answer in answers} == {"booking.book"}
    kinds = sorted(name.split(".")[1][:8].partition("-")[0] for name in echo.reply_to)
    assert kinds == ["gen", "gen", "rabbitmq", "rabbitmq"]
    assert frontend.unexpected_answers == []


async def test_a_second_answer_is_unexpected(vhost: str, echo: Echo) -> None:
    echo.copies = 2
    async with Frontend(vhost) as frontend:
        await frontend.ask("booking.book", "booking.book.v1", b"{}", mark="a", wait_s=20)
        await frontend.ask("booking.book", "booking.book.v1", b"{}", mark="b", wait_s=20)
        async with asyncio.timeout(20):
            while len(frontend.unexpected_answers) < 2:  # noqa: ASYNC110 - RabbitMQ delivers it
                await asyncio.sleep(0.01)


async def test_a_missing_answer_times_out(vhost: str, echo: Echo) -> None:
    echo.copies = 0
    async with Frontend(vhost) as frontend:
        with pytest.raises(TimeoutError):
            await frontend.ask("booking.book", "booking.book.v1", b"{}", mark="a", wait_s=0.2)


async def test_the_final_event_is_found_before_and_after_it_came(vhost: str, echo: Echo) -> None:
    async with Frontend(vhost) as frontend:
        early = asyncio.create_task(frontend.final_event("1", 20))
        for number, corrects in (("1", False), ("1", True), ("2", True)):
            event = {"requestId": number, "outcome": "done", "correctsUncertain": corrects}
            await echo.publish("booking.done", event, exchange=OUTCOMES)
        assert (await early)["correctsUncertain"] is True
        assert (await frontend.final_event("2", 20))["outcome"] == "done"
        with pytest.raises(TimeoutError):
            await frontend.final_event("3", 0.1)


async def test_the_last_event_about_each_report_is_kept(vhost: str, echo: Echo) -> None:
    async with Frontend(vhost) as frontend:
        for name, outcome in (("a", "dead"), ("a", "delivered"), ("b", "dead")):
            event = {"requestId": "1", "reportId": name, "outcome": outcome}
            await echo.publish("report.x", event, exchange=OUTCOMES)
        async with asyncio.timeout(20):
            while "b" not in frontend.report_events:  # noqa: ASYNC110 - RabbitMQ delivers it
                await asyncio.sleep(0.01)
        assert {name: event["outcome"] for name, event in frontend.report_events.items()} == {
            "a": "delivered",
            "b": "dead",
        }
