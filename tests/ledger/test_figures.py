"""The read models of the console: overview, suppliers, the history of lanes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from broker.ledger.ledger import Ledger
from broker.ledger.model import ConsumerStatus
from broker.ledger.operators.operations import Operations
from broker.ledger.upkeep.conservation import Conservation
from broker.ops import Actor, Refusal
from config.settings import Settings
from tests.ledger.dead import BO, dead_booking, dead_reports, operations_of
from tests.ledger.report_support import (
    NORTH,
    delivering,
    down,
    judged,
    report_settings,
    reported,
    travel,
    wrong_address,
)
from tests.ledger.support import Openers, Sql, ask, claimed, left_uncertain
from tests.support import poll


@pytest.fixture
def settings(dsn: str) -> Settings:
    return report_settings(dsn)


@pytest.fixture
async def operations(settings: Settings) -> AsyncIterator[Operations]:
    async with operations_of(settings) as opened:
        yield opened


@pytest.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    from tests.ledger.support import sealer_for

    async with Ledger.open(settings, sealer_for(settings)) as opened:
        yield opened


async def attempted(ledger: Ledger, settings: Settings, error: Exception | None) -> None:
    report_id = await reported(ledger)
    claim = await delivering(ledger, report_id)
    assert await ledger.reports.finish(claim, judged(claim, error, settings))


class TestOverview:
    async def test_a_process_is_shown_with_what_it_sees_of_itself(
        self, operations: Operations, ledger: Ledger
    ) -> None:
        ledger.heartbeat.consumer_status = lambda: ConsumerStatus(5, 4, "no consumer on jobnet.bookings")
        await ledger.set_ready(False)

        async def seen() -> Any:
            [worker] = (await operations.overviews.overview()).workers
            return worker if worker.problem else None

        worker = await poll(seen, what="the heartbeat")
        assert (worker.expected, worker.consuming, worker.alive, worker.ready) == (5, 4, True, False)
        assert worker.host

    async def test_nothing_ready_is_bad_and_one_ready_is_well(
        self, settings: Settings, operations: Operations, ledger: Ledger, sql: Sql
    ) -> None:
        await Conservation(settings, operations.server).check()
        [bad, warn] = (await operations.overviews.overview()).problems
        assert (bad.level, "no process is ready" in bad.text, warn.level) == ("bad", True, "warn")
        await ledger.set_ready(True)

        async def well() -> bool:
            return not (await operations.overviews.overview()).problems

        await poll(well, what="an overview without problems")

    async def test_a_silent_process_is_named_and_forgotten_after_an_hour(
        self, operations: Operations, sql: Sql
    ) -> None:
        insert = """INSERT INTO workers (id, pid, started_at, heartbeat_at, unbroken_since, ready, stopped_at)
            SELECT gen_random_uuid(), $1, at, at, at, true, CASE WHEN $3 THEN at END
            FROM (SELECT now() - $2 * interval '1 minute' AS at) AS t"""
        for pid, minutes, stopped in ((1, 10, False), (2, 10, True), (3, 90, False), (4, 90, True)):
            await sql.execute(insert, pid, minutes, stopped)
        seen = await operations.overviews.overview()
        assert [worker.pid for worker in seen.workers] == [1, 2]
        assert [problem.text for problem in seen.problems if "process 1 " in problem.text]
        assert not [problem.text for problem in seen.problems if "process 2" in problem.text]

    async def test_what_waits_is_told_by_cause_and_what_is_dead_with_its_age(
        self, operations: Operations, ledger: Ledger, settings: Settings, sql: Sql
    ) -> None:
        await attempted(ledger, settings, down())
        await reported(ledger)
        await dead_reports(sql, 3, cause="rejected")
        await sql.execute(
            "UPDATE reports SET first_failed_at = now() - interval '2 days' WHERE state = 'dead'"
        )
        seen = await operations.overviews.overview()
        assert {(row.state, row.cause, row.count) for row in seen.waiting} == {
            ("waiting", "unavailable", 1),
            ("waiting", None, 1),
        }
        [dead] = seen.dead
        assert (dead.kind, dead.cause, dead.count, dead.last_hour) == ("report", "rejected", 3, 3)
        assert seen.oldest_at == dead.oldest_at
        assert "3 dead letters in the last hour" in [problem.text for problem in seen.problems]

    async def test_open_bookings_are_counted(self, operations: Operations, ledger: Ledger, sql: Sql) -> None:
        claim = await claimed(ledger, ask())
        await left_uncertain(ledger, ask())
        bookings = (await operations.overviews.overview()).bookings
        assert (bookings.running, bookings.uncertain) == (1, 1)
        assert bookings.oldest_running_at
        assert bookings.oldest_uncertain_at
        [uncertain] = (await operations.overviews.overview()).uncertain
        assert (uncertain.booking_system, uncertain.verify_tries) == ("north", 0)
        assert "1 booking is uncertain" in [p.text for p in (await operations.overviews.overview()).problems]
        assert claim

    async def test_gaps_of_the_last_look_are_bad_until_the_next_one(
        self, settings: Settings, operations: Operations, sql: Sql
    ) -> None:
        conservation = Conservation(settings, operations.server)
        [report_id] = await dead_reports(sql, state="delivered")
        await conservation.check()
        seen = await operations.overviews.overview()
        assert seen.look
        assert (seen.look.gaps, seen.look.figures["kinds"]) == (1, {"delivered-without-attempt": 1})
        assert seen.look.figures["named"] == [{"gap": "delivered-without-attempt", "id": str(report_id)}]
        assert any("unaccounted for" in problem.text for problem in seen.problems)
        await sql.execute("DELETE FROM reports WHERE report_id = $1", report_id)
        await conservation.check()
        seen = await operations.overviews.overview()
        assert seen.look
        assert seen.look.gaps == 0

    async def test_an_old_look_is_no_look(self, settings: Settings, operations: Operations, sql: Sql) -> None:
        await Conservation(settings, operations.server).check()
        await travel(sql, 3600)
        assert any(
            "no process checks" in problem.text
            for problem in (await operations.overviews.overview()).problems
        )

    async def test_a_lane_that_is_not_open_or_needs_a_person_is_told(
        self, operations: Operations, ledger: Ledger, settings: Settings
    ) -> None:
        await attempted(ledger, settings, wrong_address())
        problems = (await operations.overviews.overview()).problems
        assert any(problem.level == "bad" and "set-up" in problem.text for problem in problems)
        await reported(ledger, supplier="sydsoft")
        await operations.lanes.pause("sydsoft", BO)
        problems = (await operations.overviews.overview()).problems
        assert any(problem.level == "warn" and "sydsoft is paused" in problem.text for problem in problems)

    async def test_an_endless_flow_is_refused(self, operations: Operations) -> None:
        for hours, step in ((0, 1), (1e9, 1), (1, 0)):
            with pytest.raises(Refusal):
                await operations.overviews.overview(hours=hours, step_minutes=step)


class TestLaneHistory:
    async def test_every_change_is_kept_with_its_reason_and_by_whom(
        self, operations: Operations, ledger: Ledger, settings: Settings, sql: Sql
    ) -> None:
        for _ in range(settings.reports.park_after_failures):
            await attempted(ledger, settings, down())
        await operations.lanes.pause(NORTH, Actor("bo", "they asked for it"))
        await operations.lanes.resume(NORTH, Actor("bo", "they are back"))
        changes = (await operations.suppliers.story(NORTH)).changes
        assert [(change.before, change.state, change.by) for change in reversed(changes)] == [
            ("open", "parked", None),
            ("parked", "paused", "bo"),
            ("paused", "parked", "bo"),
        ]
        assert changes[-1].parked_until
        assert "3 failures in a row, the last: status 500" in (changes[-1].reason or "")
        assert changes[0].reason == "they are back"

    async def test_a_failure_that_changes_nothing_leaves_no_trace(
        self, operations: Operations, ledger: Ledger, settings: Settings
    ) -> None:
        await attempted(ledger, settings, down())
        await attempted(ledger, settings, None)
        assert (await operations.suppliers.story(NORTH)).changes == ()

    async def test_history_cannot_be_rewritten(
        self, operations: Operations, ledger: Ledger, sql: Sql
    ) -> None:
        await reported(ledger)
        await operations.lanes.pause(NORTH, BO)
        for statement in (
            "UPDATE lane_changes SET reason = 'x'",
            "DELETE FROM lane_changes",
            "TRUNCATE lane_changes",
        ):
            with pytest.raises(asyncpg.RestrictViolationError):
                await sql.execute(statement)


class TestSuppliers:
    async def test_attempts_latencies_and_what_ended_are_told(
        self, operations: Operations, ledger: Ledger, settings: Settings, sql: Sql
    ) -> None:
        await reported(ledger)
        for number in range(1, 101):
            await sql.execute(
                "INSERT INTO attempt_results VALUES ($1, 1, now(), $2, NULL, 204, NULL, NULL, $3, false, true, $1, $4)",
                uuid4(),
                "delivered" if number > 25 else "later",
                number,
                NORTH,
            )
        await sql.executemany(
            "INSERT INTO flow VALUES (date_trunc('minute', now()), $1, $2, $3, $4)",
            [
                (uuid4(), "delivered", NORTH, 9),
                (uuid4(), "dead", NORTH, 1),
                (uuid4(), "delivered", "sydsoft", 5),
            ],
        )
        await dead_reports(sql, 2)
        [figures] = await operations.suppliers.figures()
        assert (figures.supplier, figures.attempts, figures.answered) == (NORTH, 100, 75)
        assert (figures.p50_ms, figures.p95_ms) == (50, 95)
        assert (figures.delivered, figures.died, figures.share, figures.dead) == (9, 1, 0.9, 2)
        assert (figures.lane.waiting, figures.last_attempt_at is not None) == (1, True)

    async def test_an_attempt_names_whom_it_called(
        self, operations: Operations, ledger: Ledger, settings: Settings
    ) -> None:
        await attempted(ledger, settings, down())
        await attempted(ledger, settings, None)
        story = await operations.suppliers.story(NORTH)
        assert [attempt.verdict for attempt in story.attempts] == ["delivered", "later"]
        assert [(row.cause, row.count) for row in story.waiting] == [("unavailable", 1)]
        assert story.figures.attempts == 2

    async def test_old_attempts_count_no_more(
        self, operations: Operations, ledger: Ledger, settings: Settings, sql: Sql
    ) -> None:
        await attempted(ledger, settings, None)
        await travel(sql, 2 * 86_400.0)
        [figures] = [each for each in await operations.suppliers.figures() if each.supplier == NORTH]
        assert (figures.attempts, figures.p50_ms, figures.share) == (0, None, None)

    async def test_a_supplier_without_a_lane_is_not_known(self, operations: Operations) -> None:
        with pytest.raises(Refusal, match="no lane nowhere"):
            await operations.suppliers.story("nowhere")


async def test_a_booking_that_was_given_up_is_among_the_dead(operations: Operations, sql: Sql) -> None:
    await dead_booking(sql)
    [dead] = (await operations.overviews.overview()).dead
    assert (dead.kind, dead.cause) == ("booking", "unverified")


def test_figures_without_an_end_have_no_share() -> None:
    from broker.ledger.operators.supplier_figures import SupplierFigures

    some: Any = SupplierFigures(None, 0, 0, None, None, None, 0, 0, 0, 0, None)  # type: ignore[arg-type]
    assert some.share is None
    assert replace(some, delivered=3, died=1).share == 0.75


async def test_the_counts_of_a_ledger_hold_no_personal_data(opened: Openers, sql: Sql) -> None:
    columns = await sql.fetch(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_name IN ('flow', 'lane_changes', 'last_looks')"
    )
    assert {row["data_type"] for row in columns} <= {
        *("uuid", "text", "bigint", "jsonb", "timestamp with time zone")
    }
