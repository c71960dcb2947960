"""Bookings and queries from a frontend's queue to the booking systems' books and back, all parts real."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any
from uuid import UUID, uuid4

import pika
import pytest

from sandbox.system_layout import GROUP_WITHOUT_OFFERS, offer_id
from schemas.ids import invitation_of
from tests.functional.running_broker import (
    ROOM,
    Frontend,
    RunningBroker,
    booking,
    final_answers,
    late,
    request,
    settled,
)
from tests.support import poll

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOOK = "booking.book.v1"


async def booked(frontend: Frontend, broker: RunningBroker, number: int, jobcenter: str = "90001") -> str:
    """Book the `number`th slot and give its indkaldelseId."""
    answer = await frontend.ask(BOOK, booking(broker, number, jobcenter))
    assert answer["status"] == "done", answer
    return str(answer["result"]["booking"]["indkaldelseId"])


class TestWhatCitizensAsk:
    async def test_offers_are_answered(self, shared: RunningBroker, frontend: Frontend) -> None:
        answer = await frontend.ask("query.offers.v1", request(kontaktgruppe="1"))
        assert answer["status"] == "done"
        assert answer["result"]["moedetilbud"][0]["moedetilbudId"] == str(offer_id("90001", ROOM.name))

    async def test_no_offers_is_failure_3(self, shared: RunningBroker, frontend: Frontend) -> None:
        answer = await frontend.ask("query.offers.v1", request(kontaktgruppe=GROUP_WITHOUT_OFFERS))
        assert (answer["status"], answer["fejlkode"], answer["canReport"]) == ("failed", 3, True)

    async def test_times_come_as_thirty_rows(self, shared: RunningBroker, frontend: Frontend) -> None:
        body = request(kontaktgruppe="1", moedetilbudId=str(offer_id("90001", ROOM.name)))
        answer = await frontend.ask("query.times.v1", body)
        rows = answer["result"]["tider"]
        assert len(rows) == 30
        assert [row["moedeform"] for row in rows[:3]] == ["personligtFremmoede", "telefonisk", "digitalt"]

    @pytest.mark.parametrize(("straks", "code"), [(False, 2), (True, 4)])
    async def test_no_times_is_failure_2_and_for_straksbooking_4(
        self, shared: RunningBroker, frontend: Frontend, straks: bool, code: int
    ) -> None:
        body = request(
            kontaktgruppe="1",
            moedetilbudId=str(offer_id("90001", ROOM.name)),
            fra="2040-01-01T00:00:00+01:00",
            straksbooking=straks,
        )
        assert (await frontend.ask("query.times.v1", body))["fejlkode"] == code

    async def test_a_booking_is_made_moved_accepted_and_cancelled(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        # Given a booking
        invitation = await booked(frontend, shared, 1)
        meetings = shared.sandbox.booking_systems["system-1"].book.meetings
        assert UUID(invitation) in meetings
        # When it is moved, then it is the same meeting at another time
        there = booking(shared, 2)
        move = request(1, indkaldelseId=invitation, **{k: there[k] for k in there if k not in request(1)})
        del move["moedetilbudId"]
        moved = await frontend.ask("booking.rebook.v1", move)
        assert moved["result"]["booking"]["starttidspunkt"] == there["starttidspunkt"], moved
        # When it is accepted and then called off, then it is gone
        accepted = await frontend.ask("booking.accept.v1", request(1, indkaldelseId=invitation))
        assert accepted["result"]["booking"]["accepteret"] is True
        cancelled = await frontend.ask("booking.cancel.v1", request(1, indkaldelseId=invitation))
        assert cancelled["result"] == {"indkaldelseId": invitation, "aflyst": True}
        assert UUID(invitation) not in meetings

    async def test_a_straksbooking_is_made(self, shared: RunningBroker, frontend: Frontend) -> None:
        answer = await frontend.ask("booking.immediate.v1", booking(shared, 3))
        assert answer["status"] == "done"

    async def test_an_outcome_event_tells_of_it_without_personal_data(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        body = booking(shared, 4)
        await frontend.ask(BOOK, body)
        await poll(lambda: frontend.events[body["requestId"]], what="the outcome event")
        event = frontend.events[body["requestId"]][0]
        assert (event["outcome"], event["system"], event["jobcenterkode"]) == ("done", "system-1", "90001")
        assert body["cpr"] not in json.dumps(event)


class TestRefusals:
    async def test_no_contact_group_no_booking_and_no_call(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        """Release note 3.3."""
        calls = len(shared.sandbox.booking_systems["system-1"].journal.calls)
        for type_, body in [
            (BOOK, booking(shared, 5, kontaktgruppe=None)),
            ("query.offers.v1", request(5)),
        ]:
            answer = await frontend.ask(type_, body)
            assert (answer["status"], answer["reason"]) == ("refused", "no-contact-group")
        assert len(shared.sandbox.booking_systems["system-1"].journal.calls) == calls

    async def test_an_unknown_jobcenter_is_refused(self, shared: RunningBroker, frontend: Frontend) -> None:
        answer = await frontend.ask(BOOK, booking(shared, 5, jobcenterkode="12345"))
        assert (answer["status"], answer["reason"]) == ("refused", "unknown-jobcenter")

    async def test_wrong_fields_are_all_named_and_no_value_is_repeated(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        body = booking(shared, 5, cpr="3002364001", moedeform="rygsignal", jobcenterkode="x")
        answer = await frontend.ask(BOOK, body)
        assert (answer["status"], answer["reason"]) == ("refused", "invalid")
        assert {field["field"] for field in answer["fields"]} == {"cpr", "moedeform", "jobcenterkode"}
        assert "3002364001" not in json.dumps(answer)
        assert "rygsignal" not in json.dumps(answer)

    async def test_a_taken_time_is_refused(self, shared: RunningBroker, frontend: Frontend) -> None:
        await booked(frontend, shared, 6)
        answer = await frontend.ask(BOOK, {**booking(shared, 6), "cpr": booking(shared, 7)["cpr"]})
        assert (answer["status"], answer["reason"]) == ("refused", "caseworker-not-offered")
        anyone = booking(shared, 6, sagsbehandlerId=None, starttidspunkt="2040-01-02T08:00:00+01:00")
        answer = await frontend.ask(BOOK, {**anyone, "cpr": booking(shared, 7)["cpr"]})
        assert (answer["status"], answer["reason"]) == ("refused", "time-not-offered")

    async def test_a_fault_of_the_contract_is_a_refusal_with_its_reason(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        system = shared.sandbox.booking_systems["system-1"]
        body = booking(shared, 8)
        system.script("reserve", "snatch", invitation=str(invitation_of(UUID(body["requestId"]))))
        answer = await frontend.ask(BOOK, body)
        assert (answer["status"], answer["reason"]) == ("refused", "slot-taken")

    async def test_what_came_too_late_expires_and_nothing_is_called(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        calls = len(shared.sandbox.booking_systems["system-1"].journal.calls)
        answer = await frontend.ask(BOOK, booking(shared, 9, sentAt=late(60)))
        assert answer["status"] == "expired"
        assert len(shared.sandbox.booking_systems["system-1"].journal.calls) == calls

    async def test_a_type_on_the_wrong_queue_is_invalid(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        answer = await frontend.ask(BOOK, booking(shared, 10), routing_key="query.offers")
        assert (answer["reason"], answer["fields"][0]["field"]) == ("invalid", "type")

    async def test_an_unknown_version_is_named(self, shared: RunningBroker, frontend: Frontend) -> None:
        answer = await frontend.ask("booking.book.v9", booking(shared, 10))
        assert "version 9 of booking.book is unknown" in answer["fields"][0]["problem"]


class TestRepeats:
    """R8: "the same requestId twice gives the same answer and one effect"."""

    async def test_the_same_request_twice_gets_the_same_answer_and_books_once(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        body = booking(shared, 20)
        first = await frontend.ask(BOOK, body)
        assert await frontend.ask(BOOK, {**body, "sentAt": late(1)}) == first
        entries = shared.sandbox.booking_systems["system-1"].book.entries
        invitation = invitation_of(UUID(body["requestId"]))
        assert [e.what for e in entries if e.invitation == invitation].count("booked") == 1

    async def test_copies_that_arrive_together_are_each_answered(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        body = booking(shared, 21)
        await asyncio.gather(*(frontend.send(BOOK, body) for _ in range(10)))
        answers = frontend.answers[body["requestId"]]
        await poll(lambda: len(answers) == 10, what="ten answers")
        assert len(final_answers(answers)) == 1

    async def test_a_repeat_long_after_its_deadline_still_gets_the_answer(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        body = booking(shared, 22)
        first = await frontend.ask(BOOK, body)
        assert await frontend.ask(BOOK, {**body, "sentAt": late(3600)}) == first

    async def test_the_same_id_with_other_fields_is_a_conflict(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        body = booking(shared, 23)
        await frontend.ask(BOOK, body)
        different = {**body, "starttidspunkt": booking(shared, 24)["starttidspunkt"]}
        answer = await frontend.ask(BOOK, different)
        assert (answer["status"], answer["reason"]) == ("refused", "conflict")


class TestOneBookingAtATime:
    """R9."""

    async def test_a_second_booking_of_a_citizen_waits_for_the_first(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        shared.sandbox.booking_systems["system-1"].script("create", "slow", seconds=0.7)
        first, second = booking(shared, 30), booking(shared, 31)
        second["cpr"] = first["cpr"]
        answers = await asyncio.gather(frontend.ask(BOOK, first), frontend.ask(BOOK, second))
        assert [answer["status"] for answer in answers] == ["done", "done"]

    async def test_a_second_that_cannot_wait_is_refused_busy(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        first, second = booking(shared, 32), booking(shared, 33)
        second["cpr"] = first["cpr"]
        system = shared.sandbox.booking_systems["system-1"]
        step = system.script("times", "slow", seconds=1.8)
        going = asyncio.create_task(frontend.ask(BOOK, first))
        await poll(lambda: step.times == 0, what="the first one's call")
        second["deadline"] = _soon(1.0)
        answer = await frontend.ask(BOOK, second)
        assert (answer["status"], answer["reason"]) == ("refused", "busy")
        assert (await going)["status"] == "done"


def _soon(seconds: float) -> str:
    return late(-seconds)


class TestUncertain:
    async def test_a_meeting_booked_by_a_system_that_hung_up_is_found_and_answered_done(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        system = shared.sandbox.booking_systems["system-1"]
        system.script("create", "reset", after_work=True)
        answer = await frontend.ask(BOOK, booking(shared, 40))
        assert answer["status"] == "done"

    async def test_a_create_that_never_happened_is_uncertain_and_then_not_booked(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        # Given a system that answers 500 to the create and does nothing
        body = booking(shared, 41)
        shared.sandbox.booking_systems["system-1"].script(
            "create", "status", status=500, invitation=str(invitation_of(UUID(body["requestId"])))
        )
        # Then the citizen is told the truth: we do not know
        assert (await frontend.ask(BOOK, body))["status"] == "uncertain"
        # And a new booking of this citizen is refused meanwhile
        other = {**booking(shared, 42), "cpr": body["cpr"]}
        answer = await frontend.ask(BOOK, other)
        assert (answer["status"], answer["reason"]) == ("refused", "earlier-booking-uncertain")
        # And when absence proves it, the last word is "failed", told by event and to a repeat
        assert (await settled(shared, [body["requestId"]], within=40))[body["requestId"]] == "failed"
        final = await frontend.ask(BOOK, body)
        assert (final["status"], final["fejlkode"]) == ("failed", 4)
        events = frontend.events[body["requestId"]]
        await poll(lambda: any(e["correctsUncertain"] for e in events), what="the correcting event")
        # And the citizen may book again
        assert (await frontend.ask(BOOK, {**other, "requestId": str(uuid4())}))["status"] == "done"

    async def test_a_meeting_that_shows_up_later_corrects_the_uncertain_answer(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        # Given a system that books, answers garbage, and then hides behind errors for a while
        body = booking(shared, 43)
        invitation = str(invitation_of(UUID(body["requestId"])))
        system = shared.sandbox.booking_systems["system-1"]
        system.script("create", "garbage", after_work=True, invitation=invitation)
        system.script("find", "status", status=400, times=None, invitation=invitation, label="hidden")
        assert (await frontend.ask(BOOK, body))["status"] == "uncertain"
        # When it can be read again, then the last word is "done"
        system.scripts.clear("hidden")
        assert (await settled(shared, [body["requestId"]], within=40))[body["requestId"]] == "done"


class TestOtherClients:
    async def test_a_message_of_a_foreign_client_is_answered_by_direct_reply_to(
        self, shared: RunningBroker
    ) -> None:
        """pika, not ours, with amq.rabbitmq.reply-to."""
        body = booking(shared, 50)
        answer = await asyncio.to_thread(_ask_with_pika, shared.amqp_url, BOOK, body)
        assert (answer["status"], answer["requestId"]) == ("done", body["requestId"])

    async def test_a_frontend_that_is_gone_stops_nobody(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        await frontend.send(BOOK, booking(shared, 51), reply_to="jobnet.answers.gone")
        assert (await frontend.ask(BOOK, booking(shared, 52)))["status"] == "done"


def _ask_with_pika(url: str, type_: str, body: dict[str, Any]) -> dict[str, Any]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        found: list[bytes] = []
        properties = pika.BasicProperties(
            type=type_, reply_to="amq.rabbitmq.reply-to", content_type="application/json"
        )
        channel.basic_consume("amq.rabbitmq.reply-to", lambda *given: found.append(given[3]), auto_ack=True)
        channel.basic_publish(
            "jobnet.requests", type_.rpartition(".")[0], json.dumps(body).encode(), properties
        )
        until = time.monotonic() + 15
        while not found and time.monotonic() < until:
            connection.process_data_events(time_limit=1)
        answer: dict[str, Any] = json.loads(found[0])
        return answer
    finally:
        connection.close()


async def test_one_hung_system_does_not_slow_the_others(shared: RunningBroker, frontend: Frontend) -> None:
    """Ratio in one run: answers of healthy systems with and without a third one that hangs."""
    healthy = await _latency(shared, frontend, 100)
    shared.sandbox.booking_systems["system-3"].script("any", "hang", times=None, label="hung", seconds=30)
    stuck = [booking(shared, 300 + n, "90003") for n in range(60)]
    await asyncio.gather(*(frontend.send(BOOK, body) for body in stuck))
    beside_hung = await _latency(shared, frontend, 200)
    shared.sandbox.booking_systems["system-3"].scripts.clear("hung")
    shared.sandbox.booking_systems["system-3"].release()
    assert beside_hung < 3 * healthy, f"{beside_hung / healthy:.1f} times as slow beside a hung system"
    await poll(
        lambda: all(frontend.answers[body["requestId"]] for body in stuck), timeout=30, what="their answers"
    )


async def _latency(broker: RunningBroker, frontend: Frontend, first: int) -> float:
    """Median seconds from request to answer over 60 bookings, three at a time."""
    seconds: list[float] = []

    async def one(number: int) -> None:
        began = time.monotonic()
        answer = await frontend.ask(BOOK, booking(broker, number, f"9000{1 + number % 2}"))
        seconds.append(time.monotonic() - began)
        assert answer["status"] == "done", answer

    for start in range(first, first + 60, 3):
        await asyncio.gather(*(one(start + n) for n in range(3)))
    return statistics.median(seconds)
