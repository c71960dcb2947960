"""The ledger against a model of it: claims, settles, takeovers, freezes and sweeps in any order.

Time is not part of it: who is dead is written into the table of workers, so each step has one outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

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

from broker.ledger.ledger import Ledger
from broker.ledger.model import (
    CitizenBusy,
    Claim,
    Claimed,
    ClaimedElsewhere,
    ClaimRequest,
    Settled,
    StoredAnswer,
    TakenOver,
)
from broker.ledger.postgres.versions import bring_up_to_date
from schemas.codes import Status
from tests.ledger.support import LIVES, ask, citizen, ending, sealer_for, settings_for, uncertain
from tests.ledger.transitions import allowed_transitions, seen_transitions, watch_transitions

WORKERS, CITIZENS, REQUESTS = range(3), range(2), range(5)
worker, request = st.sampled_from(WORKERS), st.sampled_from(REQUESTS)


@dataclass
class Known:
    """The model of one request."""

    ask: ClaimRequest
    citizen: int
    state: str = "unknown"
    owner: int | None = None
    epoch: int = 0
    answer: bytes = b""
    claims: list[tuple[int, Claim]] = field(default_factory=list)

    @property
    def open(self) -> bool:
        return self.state in ("running", "uncertain")

    @property
    def held(self) -> bool:
        return any(claim.epoch == self.epoch for _, claim in self.claims)


class LedgerMachine(RuleBasedStateMachine):
    """Three processes, two citizens, five requests."""

    dsn: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.ledgers: list[Ledger] = self.run(self._open())
        self.frozen: set[int] = set()
        self.answers = 0
        late = datetime.now(UTC) - timedelta(hours=1)
        numbers = [citizen() for _ in CITIZENS]
        self.known = [Known(ask(numbers[n % 2], deadline_at=late), n % 2) for n in REQUESTS]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def _open(self) -> list[Ledger]:
        self.sql: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(self.dsn)
        await self.sql.execute("TRUNCATE workers, requests")
        chosen = settings_for(self.dsn, owner_dead_after_seconds=3600, heartbeat_seconds=900)
        opening = [Ledger.open(chosen, sealer_for(chosen)) for _ in WORKERS]
        return [await self.stack.enter_async_context(ledger) for ledger in opening]

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.run(self.sql.close())
        self.loop.close()

    def live(self) -> None:
        self.run(self.sql.execute(LIVES, [self.ledgers[n].owner for n in self.frozen]))

    def abandoned(self, of: Known, judge: int) -> bool:
        """Whether `judge` sees it as orphaned."""
        if of.owner is None or of.owner == judge:
            return of.owner is not None and not of.held
        return of.owner in self.frozen and judge not in self.frozen

    def new_answer(self) -> bytes:
        self.answers += 1
        return b"answer %d" % self.answers

    @rule(n=worker)
    def freeze(self, n: int) -> None:
        self.frozen.add(n)

    @rule(n=worker)
    def thaw(self, n: int) -> None:
        self.frozen.discard(n)

    @rule(n=worker, r=request)
    def claim(self, n: int, r: int) -> None:
        self.live()
        of = self.known[r]
        outcome = self.run(self.ledgers[n].requests.claim(of.ask))
        others = [k for k in self.known if k.open and k.citizen == of.citizen and k is not of]
        if of.state == "unknown" and others:
            assert outcome == CitizenBusy(others[0].ask.request_id, uncertain=others[0].state == "uncertain")
        elif of.state == "unknown":
            assert isinstance(outcome, Claimed)
            self.hold(of, n, outcome.claim, "running")
        elif of.state == "running" and self.abandoned(of, n):
            assert isinstance(outcome, TakenOver)
            self.hold(of, n, outcome.claim, "running")
        elif of.state == "running":
            assert outcome == ClaimedElsewhere()
        else:
            assert isinstance(outcome, Settled)
            assert (outcome.ending.answer, outcome.facts.state) == (of.answer, of.state)

    @rule(n=worker, r=request)
    def record(self, n: int, r: int) -> None:
        self.live()
        of, answer = self.known[r], self.new_answer()
        takes = of.state == "running" and self.abandoned(of, n)
        outcome = self.run(self.ledgers[n].requests.record(of.ask, ending(Status.EXPIRED, answer)))
        if of.state == "unknown":
            of.state, of.answer, of.epoch, of.owner = "settled", answer, 1, n
        if takes:
            assert isinstance(outcome, TakenOver)
            self.hold(of, n, outcome.claim, "running")
        elif of.state == "running":
            assert outcome == ClaimedElsewhere()
        else:
            assert isinstance(outcome, Settled)
            assert outcome.ending.answer == of.answer

    def hold(self, of: Known, n: int, claim: Claim, state: str) -> None:
        assert claim.epoch == of.epoch + 1
        of.claims.append((n, claim))
        of.state, of.owner, of.epoch = state, n, claim.epoch

    @precondition(lambda self: any(known.claims for known in self.known))
    @rule(data=st.data(), status=st.sampled_from([Status.DONE, Status.FAILED, Status.UNCERTAIN]))
    def settle(self, data: st.DataObject, status: Status) -> None:
        of, n, claim = self.some_claim(data)
        answer = self.new_answer()
        current = of.open and of.owner == n and of.epoch == claim.epoch
        stored = self.run(self.ledgers[n].requests.settle(claim, StoredAnswer(status, answer)))
        assert (stored is not None) == current
        if current:
            of.state = "uncertain" if status is Status.UNCERTAIN else "settled"
            of.owner, of.answer = None, answer

    def some_claim(self, data: st.DataObject) -> tuple[Known, int, Claim]:
        of = data.draw(st.sampled_from([known for known in self.known if known.claims]))
        n, claim = data.draw(st.sampled_from(of.claims))
        return of, n, claim

    @precondition(lambda self: any(known.claims for known in self.known))
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """Its task died, so the claim is no longer held (removed here, without waiting for garbage collection)."""
        of, n, claim = self.some_claim(data)
        of.claims.remove((n, claim))
        holdings = self.ledgers[n].requests._held._claims
        if holdings.get(claim.request_id) is claim:
            del holdings[claim.request_id]

    @rule(n=worker, r=request)
    def verify(self, n: int, r: int) -> None:
        self.live()
        of = self.known[r]
        claim = self.run(self.ledgers[n].verifications.claim(of.ask.request_id))
        free = of.state == "uncertain" and (of.owner is None or self.abandoned(of, n))
        assert (claim is not None) == free
        if claim is not None:
            self.hold(of, n, claim, "uncertain")

    @precondition(lambda self: any(known.claims for known in self.known))
    @rule(data=st.data(), for_good=st.booleans())
    def postpone_or_give_up(self, data: st.DataObject, for_good: bool) -> None:
        of, n, claim = self.some_claim(data)
        current = of.state == "uncertain" and of.owner == n and of.epoch == claim.epoch
        ledger = self.ledgers[n]
        done = self.run(
            ledger.verifications.give_up(claim) if for_good else ledger.verifications.postpone(claim, 60)
        )
        assert done == current
        if current:
            of.owner, of.state = None, "unverified" if for_good else "uncertain"

    @rule(n=worker)
    def sweep(self, n: int) -> None:
        self.live()
        left = [of for of in self.known if of.open and self.abandoned(of, n)]
        assert self.run(self.ledgers[n].verifications.sweep(lambda claim: uncertain())) == len(left)
        for of in left:
            of.answer = uncertain().answer if of.state == "running" else of.answer
            of.state, of.owner, of.epoch = "uncertain", None, of.epoch + 1

    @invariant()
    def the_table_says_the_same(self) -> None:
        rows = {row["request_id"]: row for row in self.run(self.sql.fetch("SELECT * FROM requests"))}
        for of in self.known:
            row = rows.get(of.ask.request_id)
            assert (row["state"] if row else "unknown") == of.state
            assert row is None or row["epoch"] == of.epoch
            assert row is None or (row["turn"] is not None) == of.open

    @invariant()
    def a_citizen_has_one_turn(self) -> None:
        for number in CITIZENS:
            assert sum(of.open for of in self.known if of.citizen == number) <= 1


@pytest.mark.timeout(300)
def test_the_ledger_does_what_its_model_says(database: str) -> None:
    asyncio.run(bring_up_to_date(database))
    asyncio.run(watch_transitions(database))
    LedgerMachine.dsn = database
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    chosen = settings(max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=slow)
    run_state_machine_as_test(LedgerMachine, settings=chosen)
    seen = asyncio.run(seen_transitions(database))
    assert ("requests", None, "running") in seen
    assert seen <= allowed_transitions()
