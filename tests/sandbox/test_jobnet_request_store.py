"""Jobnet's memory of requests and meetings, with a list of answers as a stand-in for the broker."""

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
    """Returns one answer after the other and keeps the requests. None: no answer comes."""

    def __init__(self, *answers: dict[str, Any] | None) -> None:
        self.left = list(answers)
        self.sent: list[dict[str, Any]] = []

    async def ask(self, type_: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.sent.append({"type": type_, **body})
        answer = self.left.pop(0)
        if answer is None:
            raise NoAnswer("none")
        return answer


async def test_a_request_has_the_fields_of_the_contract() -> None:
    broker = Answers(DONE, DONE, DONE)
    store = RequestStore(broker)
    await store.send(ASTA, "booking.book.v1", moedetilbudId="o", sagsbehandlerId=None)
    await store.send(VIGGO, "query.offers.v1", straksbooking=False)
    await store.send(ASTA, "report.citizen.v1", fejltekst="x")
    book, offers, report = broker.sent
    assert (book["kontaktgruppe"], book["cpr"], book["jobcenterkode"]) == ("2", ASTA.cpr, "90001")
    assert "sagsbehandlerId" not in book
    assert book["deadline"] > book["sentAt"]
    assert "kontaktgruppe" not in offers
    assert not {"kontaktgruppe", "deadline"} & set(report)
    assert len({request["requestId"] for request in broker.sent}) == 3


async def test_a_repeat_differs_in_its_times_only() -> None:
    broker = Answers(None, DONE)
    store = RequestStore(broker)
    sent = await store.send(ASTA, "booking.book.v1", moedetilbudId="o")
    assert (sent.status, sent.is_open, store.meetings(ASTA)) == ("no-answer", True, [])
    await store.resend(sent)
    assert (sent.status, store.meetings(ASTA)) == ("done", [MEETING])
    first, second = (
        {n: v for n, v in request.items() if n not in ("sentAt", "deadline")} for request in broker.sent
    )
    assert first == second


async def test_an_uncertain_booking_is_sent_again_after_its_final_event() -> None:
    broker = Answers(UNCERTAIN, DONE)
    store = RequestStore(broker)
    sent = await store.send(ASTA, "booking.book.v1", moedetilbudId="o")
    assert [request.status for request in await store.open_requests(ASTA)] == ["uncertain"]
    store.note_event({"requestId": sent.request_id, "outcome": "uncertain"})
    store.note_event({"requestId": "somebody else's", "outcome": "done"})
    assert (await store.find(ASTA, sent.request_id)).status == "uncertain"
    store.note_event({"requestId": sent.request_id, "outcome": "done", "correctsUncertain": True})
    assert (await store.find(ASTA, sent.request_id)).status == "done"
    assert await store.open_requests(ASTA) == []
    assert len(broker.sent) == 2


async def test_an_uncertain_booking_is_sent_again_after_a_while_without_an_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = RequestStore(Answers(UNCERTAIN, UNCERTAIN, DONE))
    sent = await store.send(ASTA, "booking.book.v1", moedetilbudId="o")
    monkeypatch.setattr(request_store, "RESEND_AFTER_S", -1.0)
    assert [(await store.find(ASTA, sent.request_id)).status for _ in range(2)] == ["uncertain", "done"]
    assert (await store.find(ASTA, sent.request_id)).status == "done"  # and nothing more is sent


async def test_an_event_that_comes_before_the_answer_counts() -> None:
    store: RequestStore

    class Quick(Answers):
        async def ask(self, type_: str, body: Mapping[str, Any]) -> dict[str, Any]:
            store.note_event({"requestId": body["requestId"], "outcome": "done"})
            return await super().ask(type_, body)

    store = RequestStore(Quick(None, DONE))
    sent = await store.send(ASTA, "booking.book.v1")
    assert (await store.find(ASTA, sent.request_id)).status == "done"


async def test_a_cancelled_or_unknown_meeting_is_forgotten() -> None:
    gone = {"status": "refused", "reason": "unknown-booking"}
    cancelled = {"status": "done", "result": {"indkaldelseId": "m-1", "aflyst": True}}
    for answer in (gone, cancelled):
        store = RequestStore(Answers(answer))
        store.remember_meeting(ASTA, MEETING)
        await store.send(ASTA, "booking.cancel.v1", indkaldelseId="m-1")
        assert store.meetings(ASTA) == []
        with pytest.raises(Unknown):
            store.meeting(ASTA, "m-1")


async def test_a_citizen_does_not_see_the_request_of_another() -> None:
    store = RequestStore(Answers(DONE))
    sent = await store.send(ASTA, "booking.book.v1")
    with pytest.raises(Unknown):
        await store.find(VIGGO, sent.request_id)
    assert store.meetings(VIGGO) == []


async def test_the_oldest_are_dropped_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_store, "MAX_REQUESTS", 2)
    monkeypatch.setattr(request_store, "MAX_MEETINGS", 2)
    store = RequestStore(Answers(DONE, DONE, DONE))
    sent = [await store.send(ASTA, "booking.book.v1") for _ in range(3)]
    with pytest.raises(Unknown):
        await store.find(ASTA, sent[0].request_id)
    for number in range(3):
        store.remember_meeting(VIGGO, {**MEETING, "indkaldelseId": str(number)})
    assert [meeting["indkaldelseId"] for meeting in store.meetings(VIGGO)] == ["1", "2"]
