"""Group commit: batches, their repetition row by row after a row's error and whole after a lost connection."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from broker.errors import LedgerAway
from broker.ledger.ledger import Ledger
from broker.ledger.model import CitizenBusy, Claimed, ClaimedElsewhere, RowBusy, RowRefused
from broker.ledger.postgres.group_commit import GroupCommit
from broker.ledger.postgres.reachability import Availability
from tests.ledger.support import Openers, Sql, ask, citizen, claimed, ending

Flush = Callable[[Sequence[int]], Awaitable[list[int | Exception]]]


@asynccontextmanager
async def batching(flush: Flush, reach: Availability | None = None) -> AsyncIterator[GroupCommit[int, int]]:
    batcher: GroupCommit[int, int] = GroupCommit(flush, reach or Availability(), most=10, linger_s=0.001)
    task = asyncio.create_task(batcher.run())
    yield batcher
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_items_submitted_during_a_commit_are_the_next_batch() -> None:
    sizes: list[int] = []

    async def flush(items: Sequence[int]) -> list[int | Exception]:
        sizes.append(len(items))
        await asyncio.sleep(0.02)
        return [item * 2 for item in items]

    async with batching(flush) as batcher:
        results = await asyncio.gather(*(batcher.submit(item) for item in range(25)))
    assert results == [item * 2 for item in range(25)]
    assert sizes == [10, 10, 5]


async def test_a_refused_row_fails_only_its_own_call() -> None:
    async def flush(items: Sequence[int]) -> list[int | Exception]:
        if 3 in items:
            raise RowRefused("22021")
        return list(items)

    async with batching(flush) as batcher:
        results = await asyncio.gather(*(batcher.submit(i) for i in range(6)), return_exceptions=True)
    assert [str(result) for result in results if result not in range(6)] == [str(RowRefused("22021"))]
    assert [result for result in results if result in range(6)] == [0, 1, 2, 4, 5]


async def test_a_lost_connection_repeats_the_whole_batch_when_the_ledger_is_back() -> None:
    reach, sizes = Availability(), []

    async def flush(items: Sequence[int]) -> list[int | Exception]:
        sizes.append(len(items))
        if len(sizes) < 3:
            reach.lost(OSError())
            asyncio.get_running_loop().call_later(0.01, reach.found)
            raise LedgerAway
        return list(items)

    async with batching(flush, reach) as batcher:
        assert await asyncio.gather(*(batcher.submit(item) for item in range(7))) == list(range(7))
    assert sizes == [7, 7, 7]


async def test_a_refusal_of_the_row_itself_is_not_tried_again() -> None:
    seen = []

    async def flush(items: Sequence[int]) -> list[int | Exception]:
        seen.append(items)
        raise RowRefused("23514")

    async with batching(flush) as batcher:
        with pytest.raises(RowRefused, match="23514"):
            await batcher.submit(1)
    assert len(seen) == 1


async def test_a_busy_row_is_tried_until_it_passes_and_delays_no_other() -> None:
    reach, seen, free = Availability(), [], False

    async def flush(items: Sequence[int]) -> list[int | Exception]:
        seen.append(list(items))
        if 3 in items and not free:
            raise RowBusy("55P03")
        return list(items)

    async with batching(flush, reach) as batcher:
        tasks = [asyncio.create_task(batcher.submit(i)) for i in range(6)]
        assert await asyncio.gather(*tasks[:3], *tasks[4:]) == [0, 1, 2, 4, 5]
        await asyncio.sleep(0.5)
        assert await batcher.submit(7) == 7
        assert not tasks[3].done()
        assert not reach.away
        free = True
        assert await asyncio.wait_for(tasks[3], 5) == 3
        await batcher.drained()
    assert seen.count([3]) > 3, "it is tried alone"


async def test_a_busy_row_that_waits_when_the_loop_ends_raises_ledger_away() -> None:
    async def flush(items: Sequence[int]) -> list[int | Exception]:
        raise RowBusy("40P01")

    async with batching(flush) as batcher:
        task = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.2)
    with pytest.raises(LedgerAway, match="closed"):
        await task


async def test_a_batch_that_fails_keeps_the_ledger_away_whatever_heartbeats_say() -> None:
    reach, fails = Availability(), True

    async def flush(items: Sequence[int]) -> list[int | Exception]:
        if fails:
            raise LedgerAway
        return list(items)

    async with batching(flush, reach) as batcher:
        task = asyncio.create_task(batcher.submit(1))
        await reach.wait_until_away()
        reach.found()
        assert reach.away
        fails = False
        assert await asyncio.wait_for(task, 5) == 1
        assert not reach.away


async def test_a_batch_that_nobody_waits_for_any_more_does_not_keep_the_ledger_away() -> None:
    reach = Availability()

    async def flush(items: Sequence[int]) -> list[int | Exception]:
        raise LedgerAway

    async with batching(flush, reach) as batcher:
        task = asyncio.create_task(batcher.submit(1))
        await reach.wait_until_away()
        task.cancel()
        await asyncio.wait_for(reach.wait_until_back(), 5)


async def test_a_cancelled_caller_does_not_disturb_the_batch() -> None:
    async def flush(items: Sequence[int]) -> list[int | Exception]:
        await asyncio.sleep(0.02)
        return list(items)

    async with batching(flush) as batcher:
        tasks = [asyncio.create_task(batcher.submit(item)) for item in range(5)]
        await asyncio.sleep(0.005)
        tasks[2].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    assert done[:2] + done[3:] == [0, 1, 3, 4]


async def test_calls_that_wait_when_the_loop_ends_raise_ledger_away() -> None:
    async def flush(items: Sequence[int]) -> list[int | Exception]:
        await asyncio.sleep(3600)
        return list(items)

    async with batching(flush) as batcher:
        tasks = [asyncio.create_task(batcher.submit(item)) for item in range(25)]
        await asyncio.sleep(0.02)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in done} == {LedgerAway}
    with pytest.raises(LedgerAway):
        await batcher.submit(1)


async def test_two_hundred_at_once_with_two_of_one_citizen(ledger: Ledger) -> None:
    cpr = citizen()
    wanted = [ask() for _ in range(198)] + [ask(cpr), ask(cpr)]
    outcomes = await asyncio.gather(*(ledger.requests.claim(w) for w in wanted))
    assert sum(isinstance(outcome, Claimed) for outcome in outcomes) == 199
    assert {type(outcome) for outcome in outcomes[-2:]} == {CitizenBusy, Claimed}


async def test_the_same_request_twice_in_one_batch_is_new_once(ledger: Ledger) -> None:
    wanted = ask()
    outcomes = await asyncio.gather(*(ledger.requests.claim(wanted) for _ in range(5)))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Claimed"] + ["ClaimedElsewhere"] * 4
    assert ClaimedElsewhere() in outcomes


@pytest.mark.parametrize("bad", ["\0", "\ud800"], ids=["nul", "lone surrogate"])
async def test_one_refused_row_among_two_hundred_fails_alone(ledger: Ledger, bad: str) -> None:
    wanted = [ask() for _ in range(200)]
    wanted[77] = ask(planner=f"x{bad}")
    outcomes = await asyncio.gather(*(ledger.requests.claim(w) for w in wanted), return_exceptions=True)
    assert isinstance(outcomes[77], RowRefused)
    assert sum(isinstance(outcome, Claimed) for outcome in outcomes) == 199
    assert not ledger.availability.away


async def test_a_refused_settle_fails_alone(ledger: Ledger) -> None:
    claims = [await claimed(ledger, ask()) for _ in range(20)]
    bad = ending(reason="\0")
    settles = [ledger.requests.settle(claim, bad if n == 7 else ending()) for n, claim in enumerate(claims)]
    stored = await asyncio.gather(*settles, return_exceptions=True)
    assert isinstance(stored[7], RowRefused)
    assert all(stored[:7] + stored[8:])


async def test_a_refused_row_is_never_quoted(ledger: Ledger) -> None:
    number = citizen()
    with pytest.raises(RowRefused) as refused:
        await ledger.requests.claim(ask(planner=f"{number}\0"))
    assert number not in "".join(traceback.format_exception(refused.value))


async def test_settles_and_claims_of_many_processes_do_not_deadlock(opened: Openers, sql: Sql) -> None:
    ledgers = [await opened(batch_size=50) for _ in range(3)]
    numbers = [citizen() for _ in range(30)]

    async def book(ledger: Ledger, cpr: str) -> int:
        outcome = await ledger.requests.claim(ask(cpr))
        if isinstance(outcome, Claimed):
            return 1 if await ledger.requests.settle(outcome.claim, ending()) else 0
        return 0

    rounds = [book(ledger, number) for _ in range(5) for ledger in ledgers for number in numbers]
    done = sum(await asyncio.gather(*rounds))
    assert await sql.fetchval("SELECT count(*) FROM requests WHERE state = 'settled'") == done
    assert await sql.fetchval("SELECT count(*) FROM requests WHERE turn IS NOT NULL") == 0
