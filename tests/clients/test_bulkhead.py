"""The bulkhead: its slots, the waiting list, the breaker, and Retry-After."""

from __future__ import annotations

import asyncio
import time

import pytest

from broker.clients.breaker import Admission, Breaker, CallHealth
from broker.clients.bulkhead import LONGEST_PAUSE_SECONDS, Bulkhead, CallRejected

OK, BAD, NIL = CallHealth.ANSWERED, CallHealth.FAILED, CallHealth.NEITHER


def made(in_flight: int = 1, waiting: int = 2, failures: int = 1, open_seconds: float = 60) -> Bulkhead:
    return Bulkhead(in_flight, waiting, Breaker(failures, open_seconds))


def soon(seconds: float = 5) -> float:
    return time.monotonic() + seconds


async def rejection(at: Bulkhead, seconds: float = 5) -> str:
    with pytest.raises(CallRejected) as caught:
        await at.acquire(soon(seconds))
    return caught.value.what


async def test_waiting_calls_are_admitted_in_order() -> None:
    at, order = made(), list[int]()

    async def call(number: int) -> None:
        place = await at.acquire(soon())
        order.append(number)
        at.release(place, OK)

    place = await at.acquire(soon())
    waiting = [asyncio.create_task(call(number)) for number in (1, 2)]
    await asyncio.sleep(0)
    assert order == []
    at.release(place, OK)
    await asyncio.gather(*waiting)
    assert order == [1, 2]


async def test_a_full_waiting_list_rejects_at_once() -> None:
    at = made(waiting=1)
    place = await at.acquire(soon())
    waiting = asyncio.create_task(at.acquire(soon()))
    await asyncio.sleep(0)
    assert await rejection(at) == "waiting-list-full"
    at.release(place, OK)
    assert await waiting is Admission.NORMAL


async def test_the_wait_ends_with_the_callers_time_and_frees_its_place_in_the_waiting_list() -> None:
    at = made(waiting=1)
    place = await at.acquire(soon())
    assert await rejection(at, 0.01) == "waited-too-long"
    assert await rejection(at, -1) == "waited-too-long"
    at.release(place, OK)
    assert await at.acquire(soon()) is Admission.NORMAL


async def test_a_cancelled_wait_keeps_no_slot() -> None:
    at = made()
    place = await at.acquire(soon())
    waiting = asyncio.create_task(at.acquire(soon()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    at.release(place, OK)
    assert await at.acquire(soon()) is Admission.NORMAL


async def test_a_wait_that_is_cancelled_as_its_slot_comes_gives_the_slot_to_the_next() -> None:
    at = made()
    place = await at.acquire(soon())
    first, second = asyncio.create_task(at.acquire(soon())), asyncio.create_task(at.acquire(soon()))
    await asyncio.sleep(0)
    at.release(place, OK)  # the slot goes to the first, which has not woken up yet
    first.cancel()
    assert await second is Admission.NORMAL
    assert first.cancelled()


async def test_an_opening_breaker_rejects_the_waiting_calls_too() -> None:
    at = made()
    place = await at.acquire(soon())
    waiting = [asyncio.create_task(at.acquire(soon())) for _ in range(2)]
    await asyncio.sleep(0)
    at.release(place, BAD)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["breaker-open"] * 2
    assert await rejection(at) == "breaker-open"


async def test_a_slot_that_came_just_before_the_breaker_opened_is_not_used() -> None:
    at = made(in_flight=2)
    first, second = await at.acquire(soon()), await at.acquire(soon())
    waiting = asyncio.create_task(at.acquire(soon()))
    await asyncio.sleep(0)
    at.release(first, OK)
    at.release(second, BAD)
    assert str((await asyncio.gather(waiting, return_exceptions=True))[0]) == "breaker-open"


async def test_after_the_open_time_exactly_one_call_probes_whatever_its_result() -> None:
    at = made(in_flight=5, open_seconds=0.01)
    at.release(await at.acquire(soon()), BAD)
    await asyncio.sleep(0.02)
    probe = await at.acquire(soon())
    assert probe is Admission.PROBE
    assert await rejection(at) == "breaker-open"
    at.release(probe, NIL)  # cancelled, or held back
    again = await at.acquire(soon())
    assert again is Admission.PROBE
    at.release(again, OK)
    assert await at.acquire(soon()) is Admission.NORMAL


async def test_a_retry_after_is_kept_and_bounded() -> None:
    at = made()
    at.pause(0.02)
    with pytest.raises(CallRejected) as caught:
        await at.acquire(soon())
    assert caught.value.what == "retry-after"
    assert 0 < (caught.value.retry_after or 0) <= 0.02
    await asyncio.sleep(0.03)
    at.release(await at.acquire(soon()), OK)
    at.pause(1_000_000)
    with pytest.raises(CallRejected) as caught:
        await at.acquire(soon())
    assert (caught.value.retry_after or 0) <= LONGEST_PAUSE_SECONDS


async def test_no_slot_is_lost_or_made_up() -> None:
    at, inside, most = made(in_flight=3, waiting=50, failures=10_000), 0, 0

    async def call(number: int) -> None:
        nonlocal inside, most
        place = await at.acquire(soon(0.05 if number % 3 else 5))
        inside += 1
        most = max(most, inside)
        try:
            await asyncio.sleep(0.001 * (number % 4))
        finally:
            inside -= 1
            at.release(place, (OK, BAD, NIL)[number % 3])

    tasks = [asyncio.create_task(call(number)) for number in range(50)]
    for number, task in enumerate(tasks):
        if number % 7 == 0:
            await asyncio.sleep(0)
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (inside, most) == (0, 3)
    assert [await at.acquire(soon()) for _ in range(3)] == [Admission.NORMAL] * 3
    assert await rejection(at, 0.01) == "waited-too-long"
