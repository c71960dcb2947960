"""The short form of the matrix (`make faults` is the whole): three faults on real servers, and its own rules as data."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import invitation_of
from scripts.processes import LOCAL, private_folder
from tests.faults.audit import audit
from tests.faults.books import Books
from tests.faults.faults import HARMS
from tests.faults.findings import LATE, LEAKED, LOST, TWICE, UNTRUE
from tests.faults.load import Errand
from tests.faults.matrix import BY_NAME, KINDS, Fault, plan_of
from tests.faults.report import facts_of, markdown
from tests.faults.run import Result, run
from tests.faults.run_context import Window
from tests.faults.servers import Servers
from tests.functional.running_broker import cpr_of

SHORT = ("worker-kill", "rabbitmq-half-open", "postgresql-kill")
SEED = 20261123
NOW = datetime(2031, 1, 1, 12, tzinfo=UTC)


@pytest.mark.timeout(240)
@pytest.mark.integration
async def test_a_short_matrix_loses_nothing_and_does_nothing_twice() -> None:
    with private_folder(LOCAL / "faults") as folder, Servers(folder, mounts=False) as servers:
        result = await run(plan_of(SEED, 100, SHORT), servers, folder / "broker")
    assert result.audit.findings == [], "\n".join(map(str, result.audit.findings))
    assert result.audit.outcomes["done"], result.audit.outcomes  # how many depends on the machine


class TestThePlan:
    @given(st.integers(1, 10**6), st.integers(10, 1500))
    def test_the_same_seed_brings_the_same_faults(self, seed: int, requests: int) -> None:
        plan = plan_of(seed, requests)
        assert plan == plan_of(seed, requests)
        assert all(0 <= fault.at_request < requests for fault in plan.faults)

    def test_as_many_seeds_as_there_are_kinds_bring_each_alone_once(self) -> None:
        alone = [plan_of(seed, 100).faults[0].name for seed in range(1, len(KINDS) + 1)]
        assert sorted(alone) == sorted(BY_NAME)

    def test_every_kind_can_be_done(self) -> None:
        assert set(HARMS) == set(BY_NAME)


def errand(what: str = "book", **body: Any) -> Errand:
    request_id = uuid4()
    full = {"requestId": str(request_id), "cpr": cpr_of(1), "jobcenterkode": "90001", **body}
    return Errand(
        1, what, "booking.book.v1", "90001", full, invitation_of(request_id), sent_at=NOW, taken=True
    )


def books(one: Errand, status: str = "done", *, waited: float = 1.0, **changes: Any) -> Books:
    """All is well with one booking, but for the changes."""
    from sandbox.audit import Entry

    assert one.invitation is not None
    entry = Entry("booked", one.invitation, "c", uuid4(), "w", NOW, "telefonisk", "x", NOW)
    fields: dict[str, Any] = {
        "answers": {one.request_id: [{"status": status}]},
        "first_answer_at": {one.request_id: NOW + timedelta(seconds=waited)},
        "events": {one.request_id: [{"outcome": status}]},
        "requests": {
            one.request_id: {"status": status, "state": "settled", "report_id": None, "settled_at": NOW}
        },
        "reports": [],
        "attempts": {},
        "meetings": {},
        "entries": {one.invitation: [entry]} if status == "done" else {},
        "inbox": {},
        "disagreements": [],
        "breaches": [],
        "causes": {},
        "windows": [],
        "killed_at": [],
    }
    return Books(**fields | changes)


class TestTheAudit:
    """Each lie that the books may hold is seen: a matrix that cannot fail proves nothing."""

    def test_an_honest_run_has_no_findings(self) -> None:
        one = errand()
        assert audit([one], books(one)).findings == []

    @pytest.mark.parametrize(
        ("changes", "sort"),
        [
            ({"answers": {}}, LOST),
            ({"entries": {}}, LOST),
            ({"events": {}}, LOST),
            ({"gaps": ["report-missing x"]}, LOST),
            ({"stuck": ["request x is running"]}, LOST),
            ({"left_in_queues": {"jobnet.bookings": 1}}, LOST),
            ({"disagreements": ["x was moved twice to the same time"]}, TWICE),
            ({"waited": 30.0}, LATE),
            ({"texts": {"the log": cpr_of(1).encode()}}, LEAKED),
            ({"breaches": ["create: a field is missing"]}, UNTRUE),
        ],
    )
    def test_what_should_not_be_is_found(self, changes: dict[str, Any], sort: str) -> None:
        one = errand()
        assert [finding.sort for finding in audit([one], books(one, **changes)).findings] == [sort]

    def test_a_meeting_booked_twice_is_found(self) -> None:
        one = errand()
        seen = books(one)
        assert one.invitation is not None
        seen.entries[one.invitation] *= 2
        assert [finding.sort for finding in audit([one], seen).findings] == [TWICE]

    def test_two_different_answers_are_found(self) -> None:
        one = errand()
        seen = books(one, answers={one.request_id: [{"status": "done"}, {"status": "failed"}]})
        assert UNTRUE in [finding.sort for finding in audit([one], seen).findings]

    def test_told_failed_and_booked_all_the_same_is_found(self) -> None:
        one = errand()
        honest = books(one)
        seen = replace(books(one, "failed"), entries=honest.entries)
        assert {finding.sort for finding in audit([one], seen).findings} == {UNTRUE, LOST}

    def test_a_failure_without_a_report_is_lost_unless_our_own_limits_made_it(self) -> None:
        one = errand()
        assert [finding.sort for finding in audit([one], books(one, "failed")).findings] == [LOST]
        ours = books(one, "failed", causes={one.request_id: {"at-capacity"}})
        assert audit([one], ours).findings == []

    @pytest.mark.parametrize(("name", "found"), [("rabbitmq-kill", 0), ("supplier-slow", 1)])
    def test_late_is_explained_only_by_a_fault_on_the_path_of_its_answer(self, name: str, found: int) -> None:
        one = errand()
        window = Window(Fault(name, 0, 1.0), NOW, NOW + timedelta(seconds=1))
        assert audit([one], books(one, waited=20, windows=[window])).count(LATE) == found


@pytest.mark.integration
def test_the_documents_hold_what_is_asked_of_them(tmp_path: Path) -> None:
    one = errand()
    result = Result(plan_of(3, 100), audit([one], books(one, answers={})), 1.0, [])
    facts = facts_of([result], "tmpfs")
    for key in ("seeds", "requests", "lost", "duplicated_effects", "late", "leaked", "per_fault", "versions"):
        assert key in facts
    assert facts["lost"] == 1
    assert set(BY_NAME) <= set(facts["per_fault"])
    assert "never answered" in markdown(facts)
