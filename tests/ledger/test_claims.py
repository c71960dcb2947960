"""Every outcome of a claim and of a record (docs/architecture.md#claim, R8, R9)."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace

import pytest

from broker.ledger.audit_log import Actor
from broker.ledger.ledger import Ledger
from broker.ledger.model import CitizenBusy, Claimed, ClaimedElsewhere, Conflict, Settled, State, TakenOver
from broker.ledger.operators.operations import Operations
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
    sealer_for,
    settings_for,
    taken_over,
    uncertain,
)


async def test_an_unknown_request_is_new_and_keeps_what_was_asked(ledger: Ledger, sql: Sql) -> None:
    wanted = ask()
    outcome = await ledger.requests.claim(wanted)
    assert isinstance(outcome, Claimed)
    claim = outcome.claim
    assert (claim.owner, claim.epoch, claim.taken_over, claim.dead_owners) == (ledger.owner, 1, False, 0)
    assert (claim.planner, claim.booking_system, claim.supplier) == ("north-planner", "north", "nordsoft")
    assert (await row(sql, wanted.request_id))["family"] == "booking"


async def test_a_settled_request_gives_its_stored_answer_again(ledger: Ledger) -> None:
    """R8: the same requestId twice gives the same answer and one effect."""
    wanted = ask()
    await ledger.requests.settle(
        await claimed(ledger, wanted), ending(Status.FAILED, b"so it was", error_code=4)
    )
    again = await ledger.requests.claim(wanted)
    assert isinstance(again, Settled)
    assert (again.ending.status, again.ending.answer, again.ending.error_code) == (
        Status.FAILED,
        b"so it was",
        4,
    )
    assert again.facts.state is State.SETTLED


async def test_an_uncertain_request_gives_its_uncertain_answer_again(ledger: Ledger) -> None:
    wanted = ask()
    await left_uncertain(ledger, wanted)
    again = await ledger.requests.claim(wanted)
    assert isinstance(again, Settled)
    assert again.ending.status is Status.UNCERTAIN
    assert again.facts.state is State.UNCERTAIN


async def test_a_request_that_this_process_holds_is_claimed_elsewhere(ledger: Ledger) -> None:
    wanted = ask()
    claim = await claimed(ledger, wanted)
    assert isinstance(await ledger.requests.claim(wanted), ClaimedElsewhere)
    assert claim.epoch == 1


async def test_a_request_of_another_living_process_is_claimed_elsewhere(opened: Openers) -> None:
    one, other = await opened(), await opened()
    wanted = ask()
    claim = await claimed(one, wanted)
    for _ in range(3):
        assert isinstance(await other.requests.claim(wanted), ClaimedElsewhere)
    assert await one.requests.settle(claim, ending())


@pytest.mark.parametrize("state", ["running", "settled", "uncertain", "unverified"])
async def test_other_business_fields_are_a_conflict_in_every_state(ledger: Ledger, state: str) -> None:
    """R8: with other business fields it is refused `conflict`."""
    wanted = ask()
    claim = await claimed(ledger, wanted)
    if state == "settled":
        await ledger.requests.settle(claim, ending())
    elif state != "running":
        await ledger.requests.settle(claim, uncertain())
    if state == "unverified":
        verifying = await ledger.verifications.claim(wanted.request_id)
        assert verifying
        assert await ledger.verifications.give_up(verifying)
    other = ask(request_id=wanted.request_id, business=b"other")
    assert isinstance(await ledger.requests.claim(other), Conflict)
    assert isinstance(await ledger.requests.record(other, ending(Status.EXPIRED)), Conflict)


async def test_another_type_with_the_same_fields_is_a_conflict(ledger: Ledger) -> None:
    wanted = ask(type="booking.accept.v1", business=b"same")
    await ledger.requests.settle(await claimed(ledger, wanted), ending())
    other = ask(request_id=wanted.request_id, type="booking.cancel.v1", business=b"same")
    assert isinstance(await ledger.requests.claim(other), Conflict)


async def test_the_deadline_and_transport_do_not_count_as_business_fields(ledger: Ledger) -> None:
    wanted = ask(business=b"same")
    await ledger.requests.settle(await claimed(ledger, wanted), ending())
    later = ask(request_id=wanted.request_id, business=b"same", traceparent=None)
    assert isinstance(await ledger.requests.claim(later), Settled)


async def test_a_second_booking_of_a_citizen_is_busy_until_the_first_ends(ledger: Ledger) -> None:
    """R9: one booking action per citizen at a time."""
    cpr = citizen()
    first, second = ask(cpr), ask(cpr)
    claim = await claimed(ledger, first)
    assert await ledger.requests.claim(second) == CitizenBusy(first.request_id, uncertain=False)
    await ledger.requests.settle(claim, ending())
    assert isinstance(await ledger.requests.claim(second), Claimed)


async def test_an_uncertain_booking_keeps_its_citizen_busy(ledger: Ledger) -> None:
    """R9: while an earlier one is uncertain, a new one first verifies it."""
    cpr = citizen()
    first = ask(cpr)
    await left_uncertain(ledger, first)
    assert await ledger.requests.claim(ask(cpr)) == CitizenBusy(first.request_id, uncertain=True)


async def test_a_busy_citizens_request_leaves_no_row(ledger: Ledger, sql: Sql) -> None:
    """R9: a request that waits is not claimed yet."""
    cpr = citizen()
    _held = await claimed(ledger, ask(cpr))
    waiting = ask(cpr)
    await ledger.requests.claim(waiting)
    assert await row(sql, waiting.request_id) is None


async def test_a_frozen_owner_is_overtaken_and_settles_nothing(opened: Openers, sql: Sql) -> None:
    frozen, other = await opened(), await opened()
    wanted = ask()
    old = await claimed(frozen, wanted)
    freeze(frozen)
    new = await taken_over(other, wanted)
    assert (new.owner, new.epoch, new.dead_owners, new.taken_over) == (other.owner, 2, 1, True)
    assert await frozen.requests.settle(old, ending(answer=b"from the frozen")) is None
    assert await other.requests.settle(new, ending(answer=b"from the other"))
    again = await frozen.requests.claim(wanted)
    assert isinstance(again, Settled)
    assert again.ending.answer == b"from the other"


async def test_only_one_of_two_takes_over(opened: Openers) -> None:
    frozen, one, other = await opened(), await opened(), await opened()
    wanted = [ask() for _ in range(20)]
    claims = [await claimed(frozen, w) for w in wanted]
    freeze(frozen)
    # From now on both see the owner as dead.
    taken = [await taken_over(one, wanted[0])]
    await taken_over(other, wanted[1])
    outcomes = await asyncio.gather(
        *(ledger.requests.claim(w) for w in wanted[2:] for ledger in (one, other))
    )
    for first, second in zip(outcomes[::2], outcomes[1::2], strict=True):
        assert {type(first), type(second)} == {TakenOver, ClaimedElsewhere}
    assert len(claims) == 20
    assert taken


async def test_a_clean_stop_frees_its_claims_at_once(opened: Openers, dsn: str) -> None:
    other = await opened(owner_dead_after_seconds=60)
    one = await opened(owner_dead_after_seconds=60)
    wanted = ask()
    _held = await claimed(one, wanted)
    await one._close()
    assert isinstance(await other.requests.claim(wanted), TakenOver)


async def test_a_claim_that_this_process_dropped_is_taken_over_not_begun_again(ledger: Ledger) -> None:
    wanted = ask()
    await ledger.requests.claim(wanted)
    gc.collect()
    again = await ledger.requests.claim(wanted)
    assert isinstance(again, TakenOver)
    # No process died: this one dropped its claim.
    assert again.claim.dead_owners == 0


async def test_a_cancelled_caller_leaves_an_orphan_that_is_looked_up(ledger: Ledger, sql: Sql) -> None:
    wanted = ask()
    asking = asyncio.create_task(ledger.requests.claim(wanted))
    while await row(sql, wanted.request_id) is None:
        await asyncio.sleep(0)
        asking.cancel()
        if asking.done():
            break
    await asyncio.gather(asking, return_exceptions=True)
    again = await ledger.requests.claim(wanted)
    assert isinstance(again, Claimed | TakenOver)


async def test_an_earlier_claim_of_the_same_owner_settles_nothing(ledger: Ledger) -> None:
    wanted = ask()
    first = await claimed(ledger, wanted)
    stale = replace(first)
    del first
    gc.collect()
    again = await ledger.requests.claim(wanted)
    assert isinstance(again, TakenOver)
    assert (again.claim.owner, again.claim.epoch) == (stale.owner, stale.epoch + 1)
    assert await ledger.requests.settle(stale, ending()) is None
    assert await ledger.requests.settle(again.claim, ending())


async def test_a_claim_settles_once(ledger: Ledger) -> None:
    claim = await claimed(ledger, ask())
    assert await ledger.requests.settle(claim, ending())
    assert await ledger.requests.settle(claim, ending(answer=b"another")) is None


async def test_a_record_settles_without_running_and_takes_no_turn(ledger: Ledger) -> None:
    cpr = citizen()
    wanted = ask(cpr)
    outcome = await ledger.requests.record(wanted, ending(Status.EXPIRED, b"too late"))
    assert isinstance(outcome, Settled)
    assert outcome.ending.answer == b"too late"
    again = await ledger.requests.claim(wanted)
    assert isinstance(again, Settled)
    assert again.ending.answer == b"too late"
    assert isinstance(await ledger.requests.claim(ask(cpr)), Claimed)


async def test_a_record_while_the_citizen_is_busy_is_possible(ledger: Ledger) -> None:
    cpr = citizen()
    _held = await claimed(ledger, ask(cpr))
    assert isinstance(await ledger.requests.record(ask(cpr), ending(Status.REFUSED, reason="busy")), Settled)


async def test_a_record_does_not_settle_a_request_that_runs_elsewhere(opened: Openers) -> None:
    one, other = await opened(), await opened()
    wanted = ask()
    claim = await claimed(one, wanted)
    assert isinstance(await other.requests.record(wanted, ending(Status.EXPIRED)), ClaimedElsewhere)
    assert await one.requests.settle(claim, ending())
    late = await other.requests.record(wanted, ending(Status.EXPIRED))
    assert isinstance(late, Settled)
    assert late.ending.status is Status.DONE


async def test_a_record_of_a_dead_owners_request_takes_it_over(opened: Openers) -> None:
    one, other = await opened(), await opened(owner_dead_after_seconds=60)
    wanted = ask()
    _held = await claimed(one, wanted)
    await one._close()
    assert isinstance(await other.requests.record(wanted, ending(Status.EXPIRED)), TakenOver)


async def test_nothing_is_recorded_as_uncertain(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="only a claim"):
        await ledger.requests.record(ask(), uncertain())


async def test_two_ledgers_race_for_the_same_requests_and_each_has_one_owner(opened: Openers) -> None:
    one, other = await opened(), await opened()
    wanted = [ask() for _ in range(100)]
    outcomes = await asyncio.gather(*(ledger.requests.claim(w) for w in wanted for ledger in (one, other)))
    for pair in zip(outcomes[::2], outcomes[1::2], strict=True):
        assert sorted(type(outcome).__name__ for outcome in pair) == ["Claimed", "ClaimedElsewhere"]


async def test_two_ledgers_race_for_the_same_citizens_and_each_has_one_turn(opened: Openers) -> None:
    one, other = await opened(), await opened()
    numbers = [citizen() for _ in range(100)]
    outcomes = await asyncio.gather(
        *(ledger.requests.claim(ask(n)) for n in numbers for ledger in (one, other))
    )
    for pair in zip(outcomes[::2], outcomes[1::2], strict=True):
        assert sorted(type(outcome).__name__ for outcome in pair) == ["CitizenBusy", "Claimed"]


async def test_a_conflict_is_seen_after_the_token_key_was_rotated(opened: Openers) -> None:
    """Business fields are compared by the key that the stored row names."""
    old = await opened(tokens=("t1",))
    wanted = ask(business=b"same")
    await old.requests.settle(await claimed(old, wanted), ending())
    new = await opened(tokens=("t1", "t2"))
    assert isinstance(await new.requests.claim(wanted), Settled)
    assert isinstance(await new.requests.claim(ask(request_id=wanted.request_id, business=b"x")), Conflict)
    gone = await opened(tokens=("t2",))
    assert isinstance(
        await gone.requests.claim(wanted), Conflict
    )  # cannot be compared any more: never given away


async def test_old_and_new_keys_exclude_each_other_on_one_citizens_turn(opened: Openers) -> None:
    """Turns use the oldest configured key (docs/privacy.md#blind-index)."""
    old, new = await opened(tokens=("t1",)), await opened(tokens=("t1", "t2"))
    cpr = citizen()
    first = ask(cpr)
    _held = await claimed(new, first)
    assert await old.requests.claim(ask(cpr)) == CitizenBusy(first.request_id, uncertain=False)


async def test_a_citizen_is_found_under_every_key(opened: Openers, dsn: str) -> None:
    old = await opened(tokens=("t1",))
    cpr = citizen()
    first, second = ask(cpr), ask(cpr)
    await old.requests.settle(await claimed(old, first), ending())
    new = await opened(tokens=("t1", "t2"))
    await new.requests.settle(await claimed(new, second), ending())
    both = settings_for(dsn, tokens=("t1", "t2"))
    async with Operations.open(both, sealer_for(both)) as operations:
        found = await operations.people.find(first.cpr, Actor("bo", "the citizen asked"))
        assert [record.id for record in found] == [second.request_id, first.request_id]
        assert await operations.people.find(ask().cpr, Actor("bo", "the citizen asked")) == []
