"""What Jobnet remembers, with a list of answers in the broker's place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sandbox.jobnet import request_store
from sandbox.jobnet.broker_client import NoAnswer
from sandbox.jobnet.citizens import CITIZENS
from sandbox.jobnet.request_store import RequestStore, Unknown

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
    store = RequestStore(broker)
    await store.ask(ASTA, "booking.book.v1", moedetilbudId="o", sagsbehandlerId=None)
    await store.ask(VIGGO, "query.offers.v1", straksbooking=False)
    await store.ask(ASTA, "report.citizen.v1", fejltekst="x")
    book, offers, report = broker.sent
    assert (book["kontaktgruppe"], book["cpr"], book["jobcenterkode"]) == ("2", ASTA.cpr, "90001")
    assert "sagsbehandlerId" not in book
    assert book["deadline"] > book["sentAt"]
    assert "kontaktgruppe" not in offers
    assert not {"kontaktgruppe", "deadline"} & set(report)
    assert len({one["requestId"] for one in broker.sent}) == 3


async def test_a_repeat_differs_in_its_times_only() -> None:
    broker = Answers(None, DONE)
    store = RequestStore(broker)
    asked = await store.ask(ASTA, "booking.book.v1", moedetilbudId="o")
    assert (asked.status, asked.is_open, store.meetings(ASTA)) == ("no-answer", True, [])
    await store.again(asked)
    assert (asked.status, store.meetings(ASTA)) == ("done", [MEETING])
    first, second = ({n: v for n, v in one.items() if n not in ("sentAt", "deadline")} for one in broker.sent)
    assert first == second


async def test_an_uncertain_booking_is_asked_for_again_once_its_last_word_is_told() -> None:
    broker = Answers(UNCERTAIN, DONE)
    store = RequestStore(broker)
    asked = await store.ask(ASTA, "booking.book.v1", moedetilbudId="o")
    assert [one.status for one in await store.open_of(ASTA)] == ["uncertain"]
    store.heard({"requestId": asked.request_id, "outcome": "uncertain"})
    store.heard({"requestId": "somebody else's", "outcome": "done"})
    assert (await store.asked(ASTA, asked.request_id)).status == "uncertain"
    store.heard({"requestId": asked.request_id, "outcome": "done", "correctsUncertain": True})
    assert (await store.asked(ASTA, asked.request_id)).status == "done"
    assert await store.open_of(ASTA) == []
    assert len(broker.sent) == 2


async def test_an_uncertain_booking_is_asked_for_again_after_a_while_even_if_nothing_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = RequestStore(Answers(UNCERTAIN, UNCERTAIN, DONE))
    asked = await store.ask(ASTA, "booking.book.v1", moedetilbudId="o")
    monkeypatch.setattr(request_store, "ASK_AGAIN_S", -1.0)
    assert [(await store.asked(ASTA, asked.request_id)).status for _ in range(2)] == ["uncertain", "done"]
    assert (await store.asked(ASTA, asked.request_id)).status == "done"  # and no more is asked


async def test_what_is_told_while_the_answer_is_on_its_way_is_not_forgotten() -> None:
    store: RequestStore

    class Quick(Answers):
        async def ask(self, type_: str, body: Mapping[str, Any]) -> dict[str, Any]:
            store.heard({"requestId": body["requestId"], "outcome": "done"})
            return await super().ask(type_, body)

    store = RequestStore(Quick(None, DONE))
    asked = await store.ask(ASTA, "booking.book.v1")
    assert (await store.asked(ASTA, asked.request_id)).status == "done"


async def test_a_cancelled_or_unknown_meeting_is_forgotten() -> None:
    gone = {"status": "refused", "reason": "unknown-booking"}
    cancelled = {"status": "done", "result": {"indkaldelseId": "m-1", "aflyst": True}}
    for answer in (gone, cancelled):
        store = RequestStore(Answers(answer))
        store.remember(ASTA, MEETING)
        await store.ask(ASTA, "booking.cancel.v1", indkaldelseId="m-1")
        assert store.meetings(ASTA) == []
        with pytest.raises(Unknown):
            store.meeting(ASTA, "m-1")


async def test_nobody_sees_the_request_of_another() -> None:
    store = RequestStore(Answers(DONE))
    asked = await store.ask(ASTA, "booking.book.v1")
    with pytest.raises(Unknown):
        await store.asked(VIGGO, asked.request_id)
    assert store.meetings(VIGGO) == []


async def test_the_oldest_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_store, "MOST_ASKED", 2)
    monkeypatch.setattr(request_store, "MOST_MEETINGS", 2)
    store = RequestStore(Answers(DONE, DONE, DONE))
    asked = [await store.ask(ASTA, "booking.book.v1") for _ in range(3)]
    with pytest.raises(Unknown):
        await store.asked(ASTA, asked[0].request_id)
    for number in range(3):
        store.remember(VIGGO, {**MEETING, "indkaldelseId": str(number)})
    assert [meeting["indkaldelseId"] for meeting in store.meetings(VIGGO)] == ["1", "2"]
