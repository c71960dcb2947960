"""Failure reports from a failed booking, or a citizen's words, to the right supplier's inbox, all parts real."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from sandbox.books import citizen_token
from sandbox.supplier import SupplierServer
from schemas.ids import invitation_of, report_of
from scripts.postgres import PostgresServer
from scripts.rabbitmq import RabbitServer
from tests.functional.conftest import prepared_broker
from tests.functional.running_broker import Frontend, RunningBroker, booking, layout, request, settled
from tests.support import poll

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(150)]

BOOK = "booking.book.v1"
CITIZEN = "report.citizen.v1"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reporting(
    rabbit: RabbitServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningBroker]:
    setting = layout(systems=4, suppliers=("contract", "webhook", "contract", "contract"))
    async with prepared_broker(rabbit, postgres, tmp_path_factory.mktemp("reporting"), setting) as broker:
        await broker.start()
        yield broker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def frontend(reporting: RunningBroker) -> AsyncIterator[Frontend]:
    async with Frontend(reporting.amqp_url) as frontend:
        yield frontend


def inbox_of(broker: RunningBroker, citizen: str, supplier: str = "supplier-1") -> list[dict[str, Any]]:
    """What a supplier got about one citizen (by CPR number)."""
    return [r for r in broker.sandbox.suppliers[supplier].inbox() if r["citizen"] == citizen_token(citizen)]


async def arrived(
    broker: RunningBroker, citizen: str, supplier: str = "supplier-1", count: int = 1
) -> list[dict[str, Any]]:
    """Wait for so many reports about one citizen."""
    await poll(
        lambda: len(inbox_of(broker, citizen, supplier)) >= count, timeout=40, what=f"a report at {supplier}"
    )
    return inbox_of(broker, citizen, supplier)


async def failing(
    broker: RunningBroker, frontend: Frontend, number: int, jobcenter: str = "90001"
) -> dict[str, Any]:
    """A booking that the booking system rejects with a bare 400; the body that was sent."""
    body = booking(broker, number, jobcenter)
    system = broker.sandbox.booking_system_of(jobcenter)
    system.script("reserve", "status", status=400, invitation=str(invitation_of(UUID(body["requestId"]))))
    answer = await frontend.ask(BOOK, body)
    assert (answer["status"], answer["fejlkode"], answer["canReport"]) == ("failed", 4, True), answer
    return body


async def state_of(broker: RunningBroker, request_id: str) -> tuple[str, str | None]:
    """(state, cause) of the report that a request led to."""
    rows = await broker.rows(
        "SELECT state, cause FROM reports WHERE report_id = $1", report_of(UUID(request_id))
    )
    return (rows[0][0], rows[0][1]) if rows else ("none", None)


async def becomes(broker: RunningBroker, request_id: str, state: str, *, within: float = 40) -> str | None:
    """Wait until the report that a request led to is in this state; its cause."""

    async def there() -> bool:
        return (await state_of(broker, request_id))[0] == state

    await poll(there, timeout=within, what=f"the report to be {state}")
    return (await state_of(broker, request_id))[1]


class TestAutomaticReports:
    async def test_a_failed_booking_reaches_its_supplier_with_all_seven_fields(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        """Release note 3.2: "I indmeldingen til jobcentrenes bookingleverandører oplyses om følgende"."""
        body = await failing(reporting, frontend, 1)
        (report,) = await arrived(reporting, body["cpr"])
        assert report["moedetilbudId"] == body["moedetilbudId"]
        assert report["indkaldelseId"] is None
        assert (report["fejlkode"], report["fejlOphav"]) == (4, {"id": 32, "navn": "Jobnet"})
        assert "reservation af mødetid" in report["fejltekst"]
        assert report["fejlTidspunkt"][-6:] in ("+01:00", "+02:00")
        await becomes(reporting, body["requestId"], "delivered")
        assert report["times"] == 1

    async def test_a_webhook_supplier_gets_it_signed_with_the_number_in_the_body(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        body = await failing(reporting, frontend, 2, "90002")
        (report,) = await arrived(reporting, body["cpr"], "supplier-2")
        assert report["reportId"] == str(report_of(UUID(body["requestId"])))
        assert reporting.sandbox.breaches() == []

    async def test_the_outcome_event_tells_of_the_delivery(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        body = await failing(reporting, frontend, 3)
        events = frontend.events[body["requestId"]]
        await poll(lambda: any(e["outcome"] == "delivered" for e in events), what="report.delivered")
        assert body["cpr"] not in json.dumps(events)

    async def test_equal_failures_inside_the_window_are_one_report_with_a_count(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        reporting.sandbox.suppliers["supplier-1"].script("report", "slow", seconds=1)
        first = await failing(reporting, frontend, 4)
        again = await failing(reporting, frontend, 4)
        assert first["requestId"] != again["requestId"]
        rows = await reporting.rows(
            "SELECT count FROM reports WHERE report_id = ANY($1)",
            [report_of(UUID(body["requestId"])) for body in (first, again)],
        )
        assert [row[0] for row in rows] == [2]

    async def test_a_refusal_is_not_reported(self, reporting: RunningBroker, frontend: Frontend) -> None:
        body = booking(reporting, 5, kontaktgruppe=None)
        await frontend.ask(BOOK, body)
        assert await state_of(reporting, body["requestId"]) == ("none", None)

    async def test_an_uncertain_booking_that_proves_not_booked_is_reported(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        body = booking(reporting, 6)
        system = reporting.sandbox.booking_system_of("90001")
        system.script("create", "status", status=500, invitation=str(invitation_of(UUID(body["requestId"]))))
        assert (await frontend.ask(BOOK, body))["status"] == "uncertain"
        assert await settled(reporting, [body["requestId"]], within=40) == {body["requestId"]: "failed"}
        (report,) = await arrived(reporting, body["cpr"])
        assert "ikke er udført" in report["fejltekst"]


class TestCitizensReports:
    async def test_a_citizens_words_are_receipted_and_joined_with_the_failed_request(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        failed = await failing(reporting, frontend, 20)
        words = request(20, fejlkode=4, fejltekst="Siden gik i stå 😕", failedRequestId=failed["requestId"])
        answer = await frontend.ask(CITIZEN, words)
        assert answer["status"] == "done"
        assert "leverandøren" in answer["result"]["text"]
        reports = await arrived(reporting, failed["cpr"], count=2)
        own = next(r for r in reports if r["fejltekst"] == "Siden gik i stå 😕")
        assert own["moedetilbudId"] == failed["moedetilbudId"]

    async def test_a_failed_query_can_be_reported_too(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        offer = booking(reporting, 0)["moedetilbudId"]
        query = request(21, kontaktgruppe="1", moedetilbudId=offer, fra="2040-01-01T00:00:00+01:00")
        assert (await frontend.ask("query.times.v1", query))["fejlkode"] == 2
        words = request(21, fejlkode=2, fejltekst="Ingen tider", failedRequestId=query["requestId"])
        assert (await frontend.ask(CITIZEN, words))["status"] == "done"
        (report,) = await arrived(reporting, query["cpr"])
        assert (report["moedetilbudId"], report["fejlkode"]) == (offer, 2)

    async def test_somebody_elses_request_adds_nothing(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        others = await failing(reporting, frontend, 22)
        words = request(23, fejlkode=4, fejltekst="Hov", failedRequestId=others["requestId"])
        await frontend.ask(CITIZEN, words)
        (report,) = await arrived(reporting, words["cpr"])
        assert report["moedetilbudId"] is None

    async def test_the_same_report_twice_is_one_and_other_words_are_a_conflict(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        words = request(24, fejlkode=4, fejltekst="En gang")
        first = await frontend.ask(CITIZEN, words)
        assert await frontend.ask(CITIZEN, words) == first
        other = await frontend.ask(CITIZEN, {**words, "fejltekst": "To gange"})
        assert (other["status"], other["reason"]) == ("refused", "conflict")
        (report,) = await arrived(reporting, words["cpr"])
        assert report["times"] == 1

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"fejltekst": "x" * 501}, "fejltekst"),
            ({"fejltekst": " "}, "fejltekst"),
            ({"fejltekst": "a\u0000b"}, "fejltekst"),
            ({"fejlkode": 1}, "fejlkode"),
            ({"fejlkode": 2, "straksbooking": True}, "fejlkode"),
        ],
    )
    async def test_what_breaks_the_rules_is_refused_by_the_name_of_its_field(
        self, reporting: RunningBroker, frontend: Frontend, fields: dict[str, Any], field: str
    ) -> None:
        answer = await frontend.ask(CITIZEN, request(25, **{"fejlkode": 4, "fejltekst": "x", **fields}))
        assert (answer["reason"], answer["fields"][0]["field"]) == ("invalid", field)

    async def test_one_about_an_unknown_jobcenter_is_a_dead_letter_and_delivered_once_it_is_known(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        reporting.sandbox.suppliers["supplier-1"].served += ("95555",)
        words = request(26, "95555", fejlkode=4, fejltekst="Mit jobcenter mangler")
        assert (await frontend.ask(CITIZEN, words))["status"] == "done"
        assert await becomes(reporting, words["requestId"], "dead") == "unroutable"
        # When the directory learns of it, and operations replay the letter
        directory = reporting.folder / "directory.toml"
        directory.write_text(
            directory.read_text()
            + '\n[jobcenters."95555"]\nname = "Nyt"\nplanner = "nordlys"\n'
            + 'booking_system = "system-1"\nsupplier = "supplier-1"\n'
        )
        reporting.processes[0].reload()
        await poll(
            lambda: any(line.get("event") == "reloaded" for line in reporting.processes[0].lines()),
            what="reload",
        )
        letter = str(report_of(UUID(words["requestId"])))
        code, out, err = await reporting.call(
            "dead", "replay", letter, "--reason", "jobcenter known", "--yes"
        )
        assert code == 0, (out, err)
        (report,) = await arrived(reporting, words["cpr"])
        assert report["fejltekst"] == "Mit jobcenter mangler"


class TestWhatCountsAsDelivered:
    """Of a 302 to a login page, a 200 with HTML and a 204, only the 204 is a delivery."""

    async def _attempts(self, broker: RunningBroker, request_id: str) -> list[str]:
        rows = await broker.rows(
            "SELECT what, status FROM attempt_results WHERE report_id = $1 ORDER BY number",
            report_of(UUID(request_id)),
        )
        return [row[0] or str(row[1]) for row in rows]

    @staticmethod
    def _supplier(broker: RunningBroker, number: int) -> SupplierServer:
        return broker.sandbox.suppliers[f"supplier-{number}"]

    async def test_only_the_contracts_own_answer_is_a_delivery(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        supplier = self._supplier(reporting, 3)
        supplier.script("report", "redirect")
        supplier.script("report", "html")
        body = await failing(reporting, frontend, 40, "90003")
        await becomes(reporting, body["requestId"], "delivered")
        assert (await self._attempts(reporting, body["requestId"]))[:2] == ["redirect", "html"]
        (report,) = await arrived(reporting, body["cpr"], "supplier-3")
        assert report["times"] == 1

    async def test_a_404_with_a_contract_fault_concerns_one_report_and_a_bare_one_parks_the_lane(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        supplier = self._supplier(reporting, 4)
        supplier.script("report", "status", status=404, fault="ukendt-borger")
        one = await failing(reporting, frontend, 41, "90004")
        assert await becomes(reporting, one["requestId"], "dead") == "unknown-citizen"
        # A bare 404 says that the address is wrong: nothing is burned, a probe finds the way back
        supplier.script("report", "status", status=404)
        two = await failing(reporting, frontend, 42, "90004")
        await becomes(reporting, two["requestId"], "delivered")
        rows = await reporting.rows(
            "SELECT retries, attempts FROM reports WHERE report_id = $1", report_of(UUID(two["requestId"]))
        )
        assert (rows[0][0], rows[0][1]) == (0, 2)

    async def test_retry_after_is_obeyed_and_burns_nothing(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        supplier = self._supplier(reporting, 3)
        supplier.script("report", "status", status=429, retry_after="3")
        body = await failing(reporting, frontend, 43, "90003")
        await becomes(reporting, body["requestId"], "delivered")
        assert reporting.sandbox.disagreements() == []
        rows = await reporting.rows(
            "SELECT retries FROM reports WHERE report_id = $1", report_of(UUID(body["requestId"]))
        )
        assert rows[0][0] == 0

    async def test_a_try_that_was_carried_out_and_not_answered_is_repeated_under_its_id_and_delivered_once(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        supplier = self._supplier(reporting, 3)
        supplier.script("report", "reset", after_work=True)
        body = await failing(reporting, frontend, 44, "90003")
        await becomes(reporting, body["requestId"], "delivered")
        (report,) = await arrived(reporting, body["cpr"], "supplier-3")
        assert report["times"] == 1


class TestPeopleOnTheLanes:
    async def test_a_paused_lane_keeps_its_reports_and_burns_none(
        self, reporting: RunningBroker, frontend: Frontend
    ) -> None:
        code, _, err = await reporting.call(
            "lanes", "pause", "supplier-4", "--reason", "supplier moves house"
        )
        assert code == 0, err
        body = await failing(reporting, frontend, 50, "90004")
        code, out, _ = await reporting.call("lanes", "list", "--json")
        lane = next(lane for lane in json.loads(out) if lane["supplier"] == "supplier-4")
        assert (lane["state"], lane["reason"]) == ("paused", "supplier moves house")
        assert (await state_of(reporting, body["requestId"]))[0] == "waiting"
        code, _, err = await reporting.call("lanes", "resume", "supplier-4", "--reason", "moved")
        assert code == 0, err
        await becomes(reporting, body["requestId"], "delivered")
        code, out, _ = await reporting.call("log", "--json")
        assert {"lanes.pause", "lanes.resume"} <= {entry["action"] for entry in json.loads(out)}


async def test_the_sandbox_saw_no_breach_of_the_contract(reporting: RunningBroker) -> None:
    assert reporting.sandbox.breaches() == []
    assert reporting.sandbox.disagreements() == []
