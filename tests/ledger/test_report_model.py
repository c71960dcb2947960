"""Reports under random schedules, results, crashes, frozen processes and clock steps: the guarantees hold.

Time is the ledger's clock, moved by the test; who is dead is written into the table of workers. At the end of
each run everything that is not dead or discarded must still be deliverable: nothing is stuck for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broker.lanes.decision import Retry
from broker.lanes.events import Paused, Resumed
from broker.ledger.dead_letters.letters import DISCARD_NAMED, DISCARD_REPORTS, RESTORE_REPORTS
from broker.ledger.dead_letters.replay_steps import REPORT as REPLAY
from broker.ledger.ledger import Ledger
from broker.ledger.postgres.versions import bring_up_to_date
from broker.ledger.reports.report_model import HandedOver, LaneLimits, ReportClaim
from tests.ledger.report_support import (
    NORTH,
    SOUTH,
    down,
    judged,
    refused,
    report_settings,
    reported,
    tell_lane,
    unanswered,
    web_page,
    wrong_address,
)
from tests.ledger.support import LIVES, sealer_for
from tests.ledger.transitions import allowed_transitions, seen_transitions, watch_transitions

WORKERS = range(3)
LANES = (NORTH, SOUTH)
MOST = 12
worker, lane = st.sampled_from(WORKERS), st.sampled_from(LANES)
SECONDS = st.sampled_from([1, 5, 15, 61, 95, 300, 1001])
RESULTS: dict[str, Any] = {
    "delivered": lambda: None,
    "down": down,
    "unanswered": unanswered,
    "asked to wait": lambda: down(retry_after=1000, status=503),
    "asked to wait, unsaid": lambda: down(status=429),
    "web page": web_page,
    "wrong address": wrong_address,
    "refused": refused,
    "bug": lambda: ZeroDivisionError(),
}

CLOCK = """
CREATE TABLE IF NOT EXISTS test_clock (ahead interval NOT NULL);
TRUNCATE test_clock; INSERT INTO test_clock VALUES ('0');
CREATE OR REPLACE FUNCTION ledger_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT clock_timestamp() + (SELECT ahead FROM test_clock)';
SET jobnet.retention = 'on';
TRUNCATE workers, requests, reports, attempts, attempt_results, lanes;
"""

LATE = """
SELECT count(*) FROM reports AS r JOIN attempts AS a USING (report_id)
WHERE r.state = 'discarded' AND a.started_at > r.discarded_at
"""


class ReportMachine(RuleBasedStateMachine):
    """Three processes, two suppliers, at most a dozen reports."""

    dsn: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.chosen = report_settings(self.dsn, owner_dead_after_seconds=3600, heartbeat_seconds=900)
        self.ledgers: list[Ledger] = self.run(self._open())
        self.frozen: set[int] = set()
        self.ids: list[UUID] = []
        self.messages: list[HandedOver] = []
        self.claims: list[tuple[int, ReportClaim]] = []
        self.not_before: dict[UUID | str, datetime] = {}
        for supplier in LANES * 2:
            self.a_report_is_made(0, supplier)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def _open(self) -> list[Ledger]:
        self.sql: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(self.dsn)
        await self.sql.execute(CLOCK)
        opening = [Ledger.open(self.chosen, sealer_for(self.chosen)) for _ in WORKERS]
        return [await self.stack.enter_async_context(ledger) for ledger in opening]

    def now(self) -> datetime:
        at: datetime = self.run(self.sql.fetchval("SELECT ledger_now()"))
        return at

    def row(self, report_id: UUID) -> Any:
        return self.run(self.sql.fetchrow("SELECT * FROM reports WHERE report_id = $1", report_id))

    def live(self) -> None:
        self.run(self.sql.execute(LIVES, [self.ledgers[n].owner for n in self.frozen]))

    def is_current(self, claim: ReportClaim) -> bool:
        row = self.row(claim.report_id)
        return bool(row["state"] == "delivering" and row["epoch"] == claim.epoch)

    # -- what may happen -----------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.ids) < MOST)
    @rule(n=worker, supplier=lane)
    def a_booking_fails(self, n: int, supplier: str) -> None:
        self.a_report_is_made(n, supplier)

    def a_report_is_made(self, n: int, supplier: str) -> None:
        self.ids.append(self.run(reported(self.ledgers[n], supplier=supplier)))

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: int) -> None:
        self.time_passes_by(seconds)

    def time_passes_by(self, seconds: int) -> None:
        self.run(self.sql.execute("UPDATE test_clock SET ahead = ahead + $1", timedelta(seconds=seconds)))

    @rule(n=worker)
    def hand_over(self, n: int) -> None:
        self.hands_over(n)

    def hands_over(self, n: int) -> list[HandedOver]:
        limits = {name: LaneLimits(window=3, rate_per_second=1000) for name in LANES}
        handed = self.run(self.ledgers[n].reports.handover.hand_over(limits))
        at = self.now()
        for one in handed:
            assert at >= self.not_before.get(one.report_id, at)
            assert at >= self.not_before.get(one.supplier, at)
            assert self.row(one.report_id)["supplier"] == one.supplier
        self.messages += handed
        return list(handed)

    @rule(n=worker, results=st.lists(st.sampled_from(sorted(RESULTS)), max_size=4), seconds=SECONDS)
    def a_process_works(self, n: int, results: list[str], seconds: int) -> None:
        """After some time it hands over, claims and finishes; some messages stay in RabbitMQ."""
        self.time_passes_by(seconds)
        for one, result in zip(self.hands_over(n), results, strict=False):
            self.arrives(n, one)
            if self.claims and self.claims[-1][1].report_id == one.report_id:
                self.ends(self.claims.pop(), result)

    @precondition(lambda self: self.messages)
    @rule(n=worker, data=st.data())
    def a_message_arrives(self, n: int, data: st.DataObject) -> None:
        """Any message, in any order, any number of times."""
        self.arrives(n, data.draw(st.sampled_from(self.messages)))

    def arrives(self, n: int, message: HandedOver) -> None:
        before = self.row(message.report_id)
        claim = self.run(self.ledgers[n].reports.claim(message.report_id, message.number))
        assert (claim is not None) == (before["state"] == "handed" and before["number"] == message.number)
        if claim is not None:
            at = self.now()
            assert at >= self.not_before.get(claim.report_id, at), "an attempt before its time"
            assert at >= self.not_before.get(claim.supplier, at), "an attempt before the Retry-After"
            self.claims.append((n, claim))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), result=st.sampled_from(sorted(RESULTS)))
    def an_attempt_ends(self, data: st.DataObject, result: str) -> None:
        held = data.draw(st.sampled_from(self.claims))
        self.claims.remove(held)
        self.ends(held, result)

    def ends(self, held: tuple[int, ReportClaim], result: str) -> None:
        n, claim = held
        current, at = self.is_current(claim), self.now()
        judgement = judged(claim, RESULTS[result](), self.chosen)
        assert self.run(self.ledgers[n].reports.finish(claim, judgement)) == current
        if current and isinstance(judgement.verdict, Retry):
            self.not_before[claim.report_id] = at + timedelta(seconds=judgement.verdict.pause_s)
        if current and result == "asked to wait":
            self.not_before[claim.supplier] = at + timedelta(seconds=1000)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def its_task_dies(self, data: st.DataObject) -> None:
        n, claim = held = data.draw(st.sampled_from(self.claims))
        self.claims.remove(held)
        in_hand = self.ledgers[n].reports._held._claims
        if in_hand.get(claim.report_id) is claim:
            del in_hand[claim.report_id]

    @rule(n=worker, frozen=st.sets(worker, max_size=2))
    def sweep(self, n: int, frozen: set[int]) -> None:
        """While some processes look dead."""
        self.frozen = frozen
        self.live()
        safe = [
            c.report_id for m, c in self.claims if (m == n or m not in self.frozen) and self.is_current(c)
        ]
        self.run(self.ledgers[n].reports.sweep())
        assert all(self.row(report_id)["state"] == "delivering" for report_id in safe)

    @precondition(lambda self: self.messages)
    @rule(n=worker, data=st.data())
    def a_publish_fails(self, n: int, data: st.DataObject) -> None:
        self.run(self.ledgers[n].reports.handover.revert(data.draw(st.sampled_from(self.messages))))

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        """A dead report, or one by its id; never one that is being delivered."""
        self.conditional(DISCARD_REPORTS, data, {"dead"}, "discarded")
        self.conditional(DISCARD_NAMED, data, {"waiting", "handed", "joining"}, "discarded")

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        self.conditional(RESTORE_REPORTS, data, {"discarded"}, "dead")

    def conditional(self, statement: str, data: st.DataObject, before: set[str], then: str) -> None:
        report_id = data.draw(st.sampled_from(self.ids))
        was = self.row(report_id)["state"]
        done = self.run(self.sql.fetch(statement, [report_id]))
        assert bool(done) == (was in before)
        assert self.row(report_id)["state"] == (then if done else was)

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        report_id = data.draw(st.sampled_from(self.ids))
        was = self.row(report_id)["state"]
        done = self.run(self.sql.fetch(REPLAY, report_id, None))
        assert bool(done) == (was == "dead")
        if done:
            self.not_before.pop(report_id, None)

    @rule(supplier=lane, pause=st.booleans())
    def a_person_pauses_or_resumes(self, supplier: str, pause: bool) -> None:
        event = Paused("ann", "why not") if pause else Resumed("ann", "well")
        self.run(tell_lane(self.sql, self.chosen, event, supplier))

    # -- what must be true -----------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_delivered_after_a_discard(self) -> None:
        assert self.run(self.sql.fetchval(LATE)) == 0

    @invariant()
    def no_report_is_lost_and_each_attempt_is_written_down(self) -> None:
        rows = self.run(self.sql.fetch("SELECT report_id, attempts FROM reports"))
        assert {row["report_id"] for row in rows} == set(self.ids)
        assert sum(row["attempts"] for row in rows) == self.run(
            self.sql.fetchval("SELECT count(*) FROM attempts")
        )

    @invariant()
    def a_closed_lane_holds_nothing_but_its_probe(self) -> None:
        stray = """SELECT count(*) FROM reports JOIN lanes USING (supplier)
            WHERE reports.state = 'handed' AND lanes.state <> 'open' AND probe IS DISTINCT FROM report_id"""
        assert self.run(self.sql.fetchval(stray)) == 0

    def teardown(self) -> None:
        self.run(self._bring_home())
        self.run(self.stack.aclose())
        self.run(self.sql.close())
        self.loop.close()

    async def _bring_home(self) -> None:
        """With one process left and suppliers that answer, every open report must be delivered."""
        ledger = self.ledgers[0]
        await self.sql.execute(LIVES, [other.owner for other in self.ledgers[1:]])
        self.claims.clear()
        ledger.reports._held._claims.clear()
        for name in LANES:
            await tell_lane(self.sql, self.chosen, Resumed("ann", "home"), name)
        for _ in range(2 * MOST):
            await self.sql.execute("UPDATE test_clock SET ahead = ahead + interval '1 day'")
            await ledger.reports.sweep()
            for one in await ledger.reports.handover.hand_over(
                {name: LaneLimits(MOST, 1000) for name in LANES}
            ):
                claim = await ledger.reports.claim(one.report_id, one.number)
                if claim is not None:
                    await ledger.reports.finish(claim, judged(claim, None, self.chosen))
        states = {row["state"] for row in await self.sql.fetch("SELECT state FROM reports")}
        assert states <= {"delivered", "dead", "discarded"}


@pytest.mark.timeout(300)
def test_every_promise_about_reports_is_kept(database: str) -> None:
    asyncio.run(bring_up_to_date(database))
    asyncio.run(watch_transitions(database))
    ReportMachine.dsn = database
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    chosen = settings(max_examples=40, stateful_step_count=50, deadline=None, suppress_health_check=slow)
    run_state_machine_as_test(ReportMachine, settings=chosen)
    seen = asyncio.run(seen_transitions(database))
    assert ("reports", "delivering", "delivered") in seen
    assert seen <= allowed_transitions()
