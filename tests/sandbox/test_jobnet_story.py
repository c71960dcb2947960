"""What Jobnet remembers, with a list of answers in the broker's place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sandbox.jobnet import story as module
from sandbox.jobnet.asking import NoAnswer
from sandbox.jobnet.citizens import CITIZENS
from sandbox.jobnet.story import Story, Unknown

ASTA, VIGGO = CITIZENS["asta"], CITIZENS["viggo"]
MEETING = {"indkaldelseId": "m-1", "starttidspunkt": "2026-11-24T10:00:00+01:00"}
DONE = {"status": "done", "result": {"booking": MEETING}}
UNCERTAIN = {"status": "uncertain", "text": "…"}


class Answers:
    """Gives one answer after the other, and keeps what it was asked. None: no answer comes."""

    def __init__(self, *answers: dict[str, Any] | None) -> None:
        self.left = list(answers)
        self.sent: list[dict[str, Any]] = []

    async def ask(self, type_: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.sent.append({"type": type_, **body})
        answer = self.left.pop(0)
        if answer is None:
            raise NoAnswer("none")
        return answer


async def test_a_request_carries_what_the_contract_wants() -> None:
    broker = Answers(DONE, DONE, DONE)
    story = Story(broker)
    await story.ask(ASTA, "booking.book.v1", moedetilbudId="o", sagsbehandlerId=None)
    await story.ask(VIGGO, "query.offers.v1", straksbooking=False)
    await story.ask(ASTA, "report.citizen.v1", fejltekst="x")
    book, offers, report = broker.sent
    assert (book["kontaktgruppe"], book["cpr"], book["jobcenterkode"]) == ("2", ASTA.cpr, "90001")
    assert "sagsbehandlerId" not in book
    assert book["deadline"] > book["sentAt"]
    assert "kontaktgruppe" not in offers
    assert not {"kontaktgruppe", "deadline"} & set(report)
    assert len({one["requestId"] for one in broker.sent}) == 3


async def test_a_repeat_differs_in_its_times_only() -> None:
    broker = Answers(None, DONE)
    story = Story(broker)
    asked = await story.ask(ASTA, "booking.book.v1", moedetilbudId="o")
    assert (asked.status, asked.is_open, story.meetings(ASTA)) == ("no-answer", True, [])
    await story.again(asked)
    assert (asked.status, story.meetings(ASTA)) == ("done", [MEETING])
    first, second = ({n: v for n, v in one.items() if n not in ("sentAt", "deadline")} for one in broker.sent)
    assert first == second


async def test_an_uncertain_booking_is_asked_for_again_once_its_last_word_is_told() -> None:
    broker = Answers(UNCERTAIN, DONE)
    story = Story(broker)
    asked = await story.ask(ASTA, "booking.book.v1", moedetilbudId="o")
    assert [one.status for one in await story.open_of(ASTA)] == ["uncertain"]
    story.heard({"requestId": asked.request_id, "outcome": "uncertain"})
    story.heard({"requestId": "somebody else's", "outcome": "done"})
    assert (await story.asked(ASTA, asked.request_id)).status == "uncertain"
    story.heard({"requestId": asked.request_id, "outcome": "done", "correctsUncertain": True})
    assert (await story.asked(ASTA, asked.request_id)).status == "done"
    assert await story.open_of(ASTA) == []
    assert len(broker.sent) == 2


async def test_an_uncertain_booking_is_asked_for_again_after_a_while_even_if_nothing_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Story(Answers(UNCERTAIN, UNCERTAIN, DONE))
    asked = await story.ask(ASTA, "booking.book.v1", moedetilbudId="o")
    monkeypatch.setattr(module, "ASK_AGAIN_S", -1.0)
    assert [(await story.asked(ASTA, asked.request_id)).status for _ in range(2)] == ["uncertain", "done"]
    assert (await story.asked(ASTA, asked.request_id)).status == "done"  # and no more is asked


async def test_what_is_told_while_the_answer_is_on_its_way_is_not_forgotten() -> None:
    story: Story

    class Quick(Answers):
        async def ask(self, type_: str, body: Mapping[str, Any]) -> dict[str, Any]:
            story.heard({"requestId": body["requestId"], "outcome": "done"})
            return await super().ask(type_, body)

    story = Story(Quick(None, DONE))
    asked = await story.ask(ASTA, "booking.book.v1")
    assert (await story.asked(ASTA, asked.request_id)).status == "done"


async def test_a_cancelled_or_unknown_meeting_is_forgotten() -> None:
    gone = {"status": "refused", "reason": "unknown-booking"}
    cancelled = {"status": "done", "result": {"indkaldelseId": "m-1", "aflyst": True}}
    for answer in (gone, cancelled):
        story = Story(Answers(answer))
        story.remember(ASTA, MEETING)
        await story.ask(ASTA, "booking.cancel.v1", indkaldelseId="m-1")
        assert story.meetings(ASTA) == []
        with pytest.raises(Unknown):
            story.meeting(ASTA, "m-1")


async def test_nobody_sees_the_request_of_another() -> None:
    story = Story(Answers(DONE))
    asked = await story.ask(ASTA, "booking.book.v1")
    with pytest.raises(Unknown):
        await story.asked(VIGGO, asked.request_id)
    assert story.meetings(VIGGO) == []


async def test_the_oldest_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ASKED", 2)
    monkeypatch.setattr(module, "MOST_MEETINGS", 2)
    story = Story(Answers(DONE, DONE, DONE))
    asked = [await story.ask(ASTA, "booking.book.v1") for _ in range(3)]
    with pytest.raises(Unknown):
        await story.asked(ASTA, asked[0].request_id)
    for number in range(3):
        story.remember(VIGGO, {**MEETING, "indkaldelseId": str(number)})
    assert [meeting["indkaldelseId"] for meeting in story.meetings(VIGGO)] == ["1", "2"]
