"""Uncertain bookings: due, verified, postponed, given up, swept (docs/architecture.md#unknown)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.ledger.ledger import Ledger
from broker.ledger.model import CitizenBusy, Claim, Claimed, Settled, State, StoredAnswer, TakenOver
from schemas.codes import Status
from tests.ledger.support import (
    Openers,
    Sql,
    ask,
    citizen,
    claimed,
    ending,
    freeze,
    left_uncertain,
    row,
    uncertain,
)
from tests.support import poll


async def due_one(ledger: Ledger) -> Claim:
    async def look() -> Any:
        return await ledger.verifications.due(1)

    claims: list[Claim] = await poll(look, what="a verification due")
    return claims[0]


def abandoned(claim: Claim) -> StoredAnswer:
    """The scheduler's answer for a booking that a dead owner left."""
    return uncertain(last_sent_at=claim.deadline_at)


async def expire(sql: Sql) -> None:
    await sql.execute("UPDATE requests SET deadline_at = deadline_at - interval '1 hour'")


async def test_an_uncertain_booking_is_verified_settled_and_its_event_is_due(
    ledger: Ledger, sql: Sql
) -> None:
    """The final answer replaces the stored one, and the outcome event is due."""
    wanted = ask()
    await left_uncertain(ledger, wanted)
    claim = await due_one(ledger)
    assert (claim.request_id, claim.epoch, claim.message) == (wanted.request_id, 2, wanted.message)
    assert claim.uncertain_since is not None
    assert claim.last_sent_at is not None
    stored = await ledger.requests.settle(claim, ending(answer=b"final", reason=None))
    assert stored is not None
    assert stored.facts.corrected
    again = await ledger.requests.claim(wanted)
    assert isinstance(again, Settled)
    assert (again.ending.answer, again.facts.state) == (b"final", State.SETTLED)
    (event,) = await ledger.events.due(10)
    assert (event.request_id, event.outcome, event.corrects_uncertain) == (wanted.request_id, "done", True)
    await ledger.events.mark_sent([event.request_id])
    assert (await row(sql, wanted.request_id))["event_due_at"] is None


async def test_an_event_that_was_taken_and_not_sent_is_due_again(ledger: Ledger, sql: Sql) -> None:
    await left_uncertain(ledger, ask())
    await ledger.requests.settle(await due_one(ledger), ending())
    assert len(await ledger.events.due(10)) == 1
    assert await ledger.events.due(10) == []
    await sql.execute("UPDATE requests SET event_due_at = event_due_at - interval '61 s'")
    assert len(await ledger.events.due(10)) == 1


async def test_a_booking_that_was_never_uncertain_leaves_no_event(ledger: Ledger) -> None:
    await ledger.requests.settle(await claimed(ledger, ask()), ending())
    assert await ledger.events.due(10) == []


async def test_the_turn_is_free_after_the_verification(ledger: Ledger) -> None:
    cpr = citizen()
    await left_uncertain(ledger, ask(cpr))
    await ledger.requests.settle(await due_one(ledger), ending(Status.FAILED, error_code=4))
    assert isinstance(await ledger.requests.claim(ask(cpr)), Claimed)


async def test_a_lookup_without_a_result_is_postponed_and_counted(ledger: Ledger, sql: Sql) -> None:
    wanted = ask()
    await left_uncertain(ledger, wanted)
    claim = await due_one(ledger)
    assert await ledger.verifications.postpone(claim, 3600)
    assert await ledger.verifications.due(10) == []
    assert not await ledger.verifications.postpone(claim, 1)
    at_once = await ledger.verifications.claim(wanted.request_id)
    assert at_once
    assert (at_once.epoch, at_once.verify_tries) == (3, 1)


async def test_a_verification_has_one_claimant(opened: Openers) -> None:
    one, other = await opened(), await opened()
    wanted = ask()
    await left_uncertain(one, wanted)
    claim = await due_one(one)
    assert await other.verifications.claim(wanted.request_id) is None
    assert await one.verifications.claim(wanted.request_id) is None
    assert await other.verifications.due(10) == []
    assert await one.requests.settle(claim, ending())
    assert await one.verifications.claim(wanted.request_id) is None


async def test_two_processes_share_due_verifications_without_overlap(opened: Openers, sql: Sql) -> None:
    one, other = await opened(), await opened()
    for _ in range(20):
        await left_uncertain(one, ask())
    await asyncio.sleep(0.1)
    # One system takes at most a quarter of the places at once
    shares = await asyncio.gather(*(ledger.verifications.due(28) for ledger in (one, other) * 3))
    assert all(len(share) <= 7 for share in shares)
    ids = [claim.request_id for share in shares for claim in share]
    assert len(ids) == len(set(ids)) == 20


async def test_giving_up_frees_the_turn_keeps_the_answer_and_leaves_an_event(
    ledger: Ledger, sql: Sql
) -> None:
    """R9: the turn ends with the final answer, or when verification gives up (`unverified`)."""
    cpr = citizen()
    wanted = ask(cpr)
    await left_uncertain(ledger, wanted)
    claim = await due_one(ledger)
    assert await ledger.verifications.give_up(claim)
    assert not await ledger.verifications.give_up(claim)
    assert isinstance(await ledger.requests.claim(ask(cpr)), Claimed)
    again = await ledger.requests.claim(wanted)
    assert isinstance(again, Settled)
    assert (again.ending.status, again.facts.state) == (Status.UNCERTAIN, State.UNVERIFIED)
    (event,) = await ledger.events.due(10)
    assert event.outcome == "unverified"


async def test_absence_proves_nothing_before_what_was_last_sent(ledger: Ledger, sql: Sql) -> None:
    """Without a known time it counts as sent at the latest possible moment."""
    sent_at = datetime.now(UTC) - timedelta(seconds=3)
    said, unsaid = ask(), ask()
    await ledger.requests.settle(await claimed(ledger, said), uncertain(last_sent_at=sent_at))
    await ledger.requests.settle(await claimed(ledger, unsaid), uncertain())
    assert (await row(sql, said.request_id))["last_sent_at"] == sent_at
    assert (await row(sql, unsaid.request_id))["last_sent_at"] >= unsaid.deadline_at


async def test_the_sweep_makes_expired_bookings_of_a_dead_owner_uncertain(opened: Openers, sql: Sql) -> None:
    frozen, other = await opened(), await opened()
    cpr = citizen()
    wanted, alive = ask(cpr), ask()
    left = await claimed(frozen, wanted)
    running = await claimed(other, alive)
    await expire(sql)
    freeze(frozen)
    answered: list[Claim] = []

    def answer_for(claim: Claim) -> StoredAnswer:
        answered.append(claim)
        return abandoned(claim)

    async def swept() -> Any:
        return await other.verifications.sweep(answer_for)

    assert await poll(swept, what="a sweep that finds it") == 1
    assert [claim.message for claim in answered] == [wanted.message]
    stored = await row(sql, wanted.request_id)
    assert (stored["state"], stored["dead_owners"], stored["owner"]) == ("uncertain", 1, None)
    assert stored["last_sent_at"] == stored["deadline_at"]
    assert await other.requests.claim(ask(cpr)) == CitizenBusy(wanted.request_id, uncertain=True)
    assert await frozen.requests.settle(left, ending()) is None
    assert await other.requests.settle(running, ending())
    assert (await due_one(other)).request_id == wanted.request_id


async def test_the_sweep_leaves_living_owners_and_unexpired_bookings(opened: Openers, sql: Sql) -> None:
    one, other = await opened(), await opened(owner_dead_after_seconds=60)
    wanted = ask()
    claim = await claimed(one, wanted)
    await one._close()
    assert (
        await other.verifications.sweep(abandoned) == 0
    )  # its owner is gone, but the arrival may still take it over in time
    assert isinstance(await other.requests.claim(wanted), TakenOver)
    assert claim.epoch == 1


async def test_the_sweep_takes_orphans_of_its_own_process(ledger: Ledger, sql: Sql) -> None:
    held = await claimed(ledger, ask())
    with ledger.requests.until_end(await claimed(ledger, ask())):
        await expire(sql)
        assert await ledger.verifications.sweep(abandoned) == 0
    assert await ledger.verifications.sweep(abandoned) == 1
    assert await ledger.requests.settle(held, ending())


async def test_the_sweep_takes_released_bookings_that_were_not_redelivered(ledger: Ledger, sql: Sql) -> None:
    held = await claimed(ledger, ask())
    await sql.execute("UPDATE requests SET owner = NULL, epoch = epoch + 1")
    assert await ledger.verifications.sweep(abandoned) == 0
    await expire(sql)
    assert await ledger.verifications.sweep(abandoned) == 1
    assert await ledger.requests.settle(held, ending()) is None


async def test_a_verification_whose_verifier_died_is_due_again(opened: Openers, sql: Sql) -> None:
    frozen, other = await opened(), await opened()
    await left_uncertain(frozen, ask())
    claim = await due_one(frozen)
    freeze(frozen)

    async def swept() -> Any:
        return await other.verifications.sweep(abandoned)

    await poll(swept, what="a sweep that finds it")
    again = await due_one(other)
    assert (again.request_id, again.epoch, again.dead_owners) == (claim.request_id, 4, 1)
    assert await frozen.requests.settle(claim, ending()) is None
    assert not await frozen.verifications.give_up(claim)
    assert await other.requests.settle(again, ending())


async def test_a_verification_that_this_process_dropped_is_due_again(ledger: Ledger) -> None:
    wanted = ask()
    await left_uncertain(ledger, wanted)
    with ledger.verifications.until_end(await due_one(ledger)):
        assert await ledger.verifications.sweep(abandoned) == 0
    assert await ledger.verifications.sweep(abandoned) == 1
    await due_one(ledger)


async def test_a_message_that_does_not_open_is_claimed_without_it(ledger: Ledger, sql: Sql) -> None:
    await left_uncertain(ledger, ask())
    await sql.execute("UPDATE requests SET message = '\\x00'")
    assert (await due_one(ledger)).message is None


@pytest.mark.parametrize("open_state", ["running", "uncertain"])
async def test_open_systems_are_those_of_open_requests(ledger: Ledger, open_state: str) -> None:
    closed = ask(planner="p0", booking_system="b0", supplier="s0")
    await ledger.requests.settle(await claimed(ledger, closed), ending())
    wanted = ask(planner="p1", booking_system="b1", supplier="s1")
    claim = await claimed(ledger, wanted)
    if open_state == "uncertain":
        await ledger.requests.settle(claim, uncertain())
    assert await ledger.lookups.open_systems() == {("planner", "p1"), ("booking", "b1"), ("supplier", "s1")}
