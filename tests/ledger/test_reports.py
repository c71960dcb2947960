"""A report in the ledger: made with its request, merged, handed over, claimed, finished, joined."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from broker.lanes.decision import RetryState
from broker.lanes.retry_policy import x_request_id
from broker.ledger.ledger import Ledger
from broker.ledger.model import NewReport, RowRefused
from broker.ledger.reports.report_model import LaneLimits
from config.settings import Settings
from schemas.codes import ReportKind, Status
from schemas.personal import Cpr
from tests.ledger.report_support import (
    NORTH,
    SOUTH,
    delivering,
    down,
    failed,
    handed_over,
    judged,
    refused,
    report_on,
    report_row,
    report_settings,
    reported,
    state_of,
    travel,
    unanswered,
)
from tests.ledger.support import ANN, BEN, Openers, Sql, ask, claimed, ending, left_uncertain, row
from tests.support import poll

LISTENS = """
SELECT EXISTS (SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND state = 'idle' AND query LIKE 'LISTEN %')
"""


@pytest.fixture
def rules(dsn: str) -> Settings:
    return report_settings(dsn)


# -- made in the transaction that settles ------------------------------------------------------------------------------


async def test_a_failed_booking_and_its_report_are_one_commit(ledger: Ledger, sql: Sql) -> None:
    asked = ask()
    report = report_on(asked)
    await ledger.requests.settle(await claimed(ledger, asked), failed(report))
    made = await report_row(sql, report.report_id)
    assert (made["state"], made["supplier"], made["count"], made["request_id"]) == (
        "waiting",
        NORTH,
        1,
        asked.request_id,
    )
    assert (await row(sql, asked.request_id))["report_id"] == report.report_id


async def test_a_refused_report_rolls_back_its_settle_and_no_other(ledger: Ledger, sql: Sql) -> None:
    good, bad = ask(), ask()
    claims = [await claimed(ledger, asked) for asked in (good, bad)]
    endings = [failed(report_on(good)), failed(report_on(bad, type="a\0b"))]
    stored = await asyncio.gather(*map(ledger.requests.settle, claims, endings), return_exceptions=True)
    assert isinstance(stored[1], RowRefused)
    assert [(await row(sql, asked.request_id))["state"] for asked in (good, bad)] == ["settled", "running"]
    assert await sql.fetchval("SELECT count(*) FROM reports") == 1


async def test_a_record_makes_its_report_and_a_repeat_makes_none(ledger: Ledger, sql: Sql) -> None:
    asked = ask()
    for _ in range(2):
        await ledger.requests.record(asked, failed(report_on(asked)))
    assert await sql.fetchval("SELECT count(*) FROM reports") == 1


async def test_a_failed_query_is_remembered_with_its_report_and_without_a_turn(
    ledger: Ledger, sql: Sql
) -> None:
    asked = ask(type="query.times.v1")
    for _ in range(2):
        await ledger.requests.record(asked, failed(report_on(asked)))
    stored = await row(sql, asked.request_id)
    assert (stored["state"], stored["family"], stored["turn"]) == ("settled", "query", None)
    assert await sql.fetchval("SELECT count(*) FROM reports") == 1


async def test_an_uncertain_booking_that_never_happened_becomes_a_report(ledger: Ledger, sql: Sql) -> None:
    asked = ask()
    await left_uncertain(ledger, asked)
    claim = await ledger.verifications.claim(asked.request_id)
    assert claim
    report = report_on(asked)
    await ledger.requests.settle(claim, failed(report))
    assert await state_of(sql, report.report_id) == "waiting"


async def test_an_overtaken_settle_makes_no_report(ledger: Ledger, sql: Sql) -> None:
    asked = ask()
    claim = await claimed(ledger, asked)
    await sql.execute("UPDATE requests SET epoch = 7")
    assert await ledger.requests.settle(claim, failed(report_on(asked))) is None
    assert await sql.fetchval("SELECT count(*) FROM reports") == 0


async def test_a_citizens_report_is_claimed_without_a_turn(ledger: Ledger) -> None:
    """R9 is about bookings."""
    booking = await claimed(ledger, ask(ANN))
    assert await claimed(ledger, ask(ANN, type="report.citizen.v1", turn=False))
    assert booking


async def test_a_report_without_a_supplier_is_dead_at_once(ledger: Ledger, sql: Sql) -> None:
    report_id = await reported(ledger, ask(supplier=""))
    made = await report_row(sql, report_id)
    assert (made["state"], made["cause"], made["supplier"]) == ("dead", "unroutable", None)
    [event] = await ledger.reports.events.due(10)
    assert (event.report_id, event.outcome, event.cause) == (report_id, "dead", "unroutable")


# -- merged --------------------------------------------------------------------------------------------------------


async def test_equal_failures_are_one_report_with_a_count(ledger: Ledger, sql: Sql) -> None:
    asks = [ask(ANN) for _ in range(3)]
    first = await reported(ledger, asks[0], merge=b"the same")
    for asked in asks[1:]:
        await reported(ledger, asked, merge=b"the same")
    other = await reported(ledger, merge=b"another")
    assert (await report_row(sql, first))["count"] == 3
    assert (await report_row(sql, other))["count"] == 1
    assert {(await row(sql, asked.request_id))["report_id"] for asked in asks} == {first}


async def test_equal_failures_of_one_batch_are_one_report(ledger: Ledger, sql: Sql) -> None:
    asks = [ask() for _ in range(20)]
    claims = [await claimed(ledger, asked) for asked in asks]
    await asyncio.gather(
        *(
            ledger.requests.settle(c, failed(report_on(a, merge=b"x")))
            for a, c in zip(asks, claims, strict=True)
        )
    )
    assert [tuple(r) for r in await sql.fetch("SELECT count FROM reports")] == [(20,)]


async def test_equal_failures_of_two_processes_are_one_report(opened: Openers, sql: Sql) -> None:
    ledgers = [await opened(batch_linger_ms=0) for _ in range(2)]

    async def fail(n: int) -> None:
        asked = ask()
        report = report_on(asked, merge=b"same %d" % (n % 3))
        await ledgers[n % 2].requests.settle(await claimed(ledgers[n % 2], asked), failed(report))

    await asyncio.gather(*(fail(n) for n in range(60)))
    counts = await sql.fetch(
        "SELECT merge_token, count(*) AS rows, sum(count) AS failures FROM reports GROUP BY 1"
    )
    assert sorted((r["rows"], r["failures"]) for r in counts) == [(1, 20)] * 3


async def test_after_ten_minutes_an_equal_failure_is_another_report(ledger: Ledger, sql: Sql) -> None:
    first = await reported(ledger, merge=b"x")
    await travel(sql, 601)
    second = await reported(ledger, merge=b"x")
    assert {(await report_row(sql, each))["count"] for each in (first, second)} == {1}


async def test_nothing_is_merged_into_a_discarded_report(ledger: Ledger, sql: Sql) -> None:
    first = await reported(ledger, merge=b"x")
    await sql.execute("UPDATE reports SET state = 'discarded', settled_at = now()")
    second = await reported(ledger, merge=b"x")
    assert (await state_of(sql, second), (await report_row(sql, first))["count"]) == ("waiting", 1)


async def test_citizens_reports_are_never_merged(ledger: Ledger, sql: Sql) -> None:
    for _ in range(2):
        await reported(ledger, merge=b"x", kind=ReportKind.CITIZEN)
    assert await sql.fetchval("SELECT count(*) FROM reports") == 2


# -- handed over ---------------------------------------------------------------------------------------------------


async def test_due_reports_are_handed_over_once_oldest_first(ledger: Ledger) -> None:
    ids = [await reported(ledger) for _ in range(3)]
    handed = await handed_over(ledger)
    assert [(one.report_id, one.number, one.supplier, one.probe) for one in handed] == [
        (report_id, 1, NORTH, False) for report_id in ids
    ]
    assert await handed_over(ledger) == []


async def test_two_processes_hand_each_report_over_once(opened: Openers) -> None:
    one, other = await opened(), await opened()
    ids = {await reported(one, supplier=supplier) for supplier in (NORTH, SOUTH) for _ in range(20)}
    rounds = await asyncio.gather(*(handed_over(ledger) for _ in range(5) for ledger in (one, other)))
    handed = [each.report_id for some in rounds for each in some]
    assert sorted(handed) == sorted(set(handed))
    rest = [each.report_id for each in await handed_over(one)]
    assert {*handed, *rest} == ids


async def test_a_window_bounds_reports_handed_over_and_delivering(ledger: Ledger) -> None:
    for _ in range(5):
        await reported(ledger)
    narrow = {NORTH: LaneLimits(window=2, rate_per_second=10_000)}
    handed = await handed_over(ledger, narrow)
    assert len(handed) == 2
    claim = await ledger.reports.claim(handed[0].report_id, handed[0].number)
    assert claim
    assert await handed_over(ledger, narrow) == []


async def test_one_rate_holds_for_all_processes(opened: Openers, sql: Sql) -> None:
    """A second's worth at once, then as time passes."""
    one, other = await opened(), await opened()
    for _ in range(30):
        await reported(one)
    slow = {NORTH: LaneLimits(window=100, rate_per_second=5)}
    first = await handed_over(one, slow) + await handed_over(other, slow)
    assert len(first) in (6, 7)
    await travel(sql, 2)
    assert len(await handed_over(other, slow)) in (5, 6, 7)


async def test_a_supplier_that_left_the_directory_is_left_alone(ledger: Ledger) -> None:
    await reported(ledger)
    assert await ledger.reports.handover.hand_over({}) == []
    assert await ledger.lookups.open_systems() == {("supplier", NORTH)}


async def test_an_unpublished_report_is_handed_over_again_under_another_number(
    ledger: Ledger, sql: Sql
) -> None:
    report_id = await reported(ledger)
    [handed] = await handed_over(ledger)
    await ledger.reports.handover.revert(handed)
    assert await ledger.reports.claim(report_id, 1) is None
    [again] = await handed_over(ledger)
    assert (again.number, (await report_row(sql, report_id))["attempts"]) == (2, 0)
    await ledger.reports.handover.revert(handed)
    assert await state_of(sql, report_id) == "handed"


async def test_a_new_report_wakes_the_scheduler_of_another_process(opened: Openers, sql: Sql) -> None:
    one, other = await opened(), await opened()
    waiting = asyncio.create_task(other.reports.wake.wait(3600))
    await poll(lambda: sql.fetchval(LISTENS), what="the other process to listen")
    await reported(one)
    await poll(waiting.done, what="the other process to wake")
    await waiting


# -- claimed and finished ------------------------------------------------------------------------------------------


async def test_a_claim_opens_the_report_and_writes_its_intent_down(ledger: Ledger, sql: Sql) -> None:
    report_id = await reported(ledger, ask(ANN))
    claim = await delivering(ledger, report_id)
    assert ANN.encode() in claim.content
    assert (claim.attempt, claim.tries, claim.probe, claim.supplier) == (1, RetryState(), False, NORTH)
    [intent] = await sql.fetch("SELECT * FROM attempts")
    assert (intent["report_id"], intent["x_request_id"]) == (report_id, x_request_id(report_id, 1))
    assert await sql.fetchval("SELECT count(*) FROM attempt_results") == 0


async def test_only_one_of_many_messages_gets_the_claim(ledger: Ledger) -> None:
    await reported(ledger)
    [handed] = await handed_over(ledger)
    claims = await asyncio.gather(*(ledger.reports.claim(handed.report_id, handed.number) for _ in range(5)))
    assert sum(claim is not None for claim in claims) == 1


async def test_an_unknown_report_or_number_is_none(ledger: Ledger) -> None:
    report_id = await reported(ledger)
    await handed_over(ledger)
    assert await ledger.reports.claim(uuid4(), 1) is None
    assert await ledger.reports.claim(report_id, 2) is None


async def test_delivered_is_the_end_and_an_event_is_due(ledger: Ledger, rules: Settings, sql: Sql) -> None:
    report_id = await reported(ledger)
    claim = await delivering(ledger, report_id)
    assert await ledger.reports.finish(claim, judged(claim, None, rules, duplicate=True))
    ended = await report_row(sql, report_id)
    assert (ended["state"], ended["duplicate"], ended["owner"], ended["cause"]) == (
        "delivered",
        True,
        None,
        None,
    )
    result = await sql.fetchrow("SELECT * FROM attempt_results")
    assert (result["verdict"], result["counted"], result["applied"]) == ("delivered", False, True)
    [event] = await ledger.reports.events.due(10)
    assert (event.outcome, event.supplier, event.kind) == ("delivered", NORTH, ReportKind.AUTOMATIC)
    assert await ledger.reports.events.due(10) == []
    await ledger.reports.events.mark_sent([report_id])
    await travel(sql, 3600)
    assert await ledger.reports.events.due(10) == []


async def test_an_event_that_was_not_sent_is_due_again(ledger: Ledger, rules: Settings, sql: Sql) -> None:
    claim = await delivering(ledger, await reported(ledger))
    await ledger.reports.finish(claim, judged(claim, None, rules))
    assert len(await ledger.reports.events.due(10)) == 1
    await travel(sql, 61)
    assert len(await ledger.reports.events.due(10)) == 1


async def test_a_counted_failure_waits_for_its_delay_and_not_less(
    ledger: Ledger, rules: Settings, sql: Sql
) -> None:
    report_id = await reported(ledger)
    claim = await delivering(ledger, report_id)
    await ledger.reports.finish(claim, judged(claim, down(), rules))
    waiting = await report_row(sql, report_id)
    assert (waiting["state"], waiting["retries"], waiting["cause"]) == ("waiting", 1, "unavailable")
    assert waiting["first_failed_at"] == waiting["last_failed_at"]
    # A second report, so that the lane has something due.
    other = await reported(ledger)
    await travel(sql, 9)
    assert [one.report_id for one in await handed_over(ledger)] == [other]
    await travel(sql, 12)
    assert len(await handed_over(ledger)) == 1


async def test_the_x_request_id_stays_only_after_an_unanswered_attempt(
    ledger: Ledger, rules: Settings, sql: Sql
) -> None:
    """docs/contract.md#request-ids."""
    report_id = await reported(ledger)
    errors = [down(), unanswered(), None]
    ids = []
    for number, error in enumerate(errors):
        await travel(sql, 100 * number)
        claim = await delivering(ledger, report_id)
        ids.append((claim.x_request_id, claim.unanswered))
        await ledger.reports.finish(claim, judged(claim, error, rules))
    first, second = x_request_id(report_id, 1), x_request_id(report_id, 2)
    assert ids == [(first, False), (second, False), (second, True)]


async def test_a_fault_of_the_contract_makes_a_dead_letter(ledger: Ledger, rules: Settings, sql: Sql) -> None:
    report_id = await reported(ledger)
    claim = await delivering(ledger, report_id)
    await ledger.reports.finish(claim, judged(claim, refused(), rules))
    dead = await report_row(sql, report_id)
    assert (dead["state"], dead["cause_class"], dead["settled_at"] is not None) == ("dead", "message", True)


async def test_a_finish_that_was_overtaken_changes_nothing_and_is_kept_as_evidence(
    ledger: Ledger, rules: Settings, sql: Sql
) -> None:
    report_id = await reported(ledger)
    claim = await delivering(ledger, report_id)
    await sql.execute("UPDATE reports SET epoch = epoch + 1")
    assert not await ledger.reports.finish(claim, judged(claim, refused(), rules))
    assert await state_of(sql, report_id) == "delivering"
    assert await sql.fetchval("SELECT applied FROM attempt_results") is False


async def test_a_report_that_cannot_be_decrypted_is_dead_without_an_attempt(ledger: Ledger, sql: Sql) -> None:
    report_id = await reported(ledger)
    await sql.execute("UPDATE reports SET content = '\\x0102'")
    [handed] = await handed_over(ledger)
    assert await ledger.reports.claim(report_id, handed.number) is None
    dead = await report_row(sql, report_id)
    assert (dead["state"], dead["cause"], dead["attempts"]) == ("dead", "seal-broken", 0)


async def test_attempts_are_append_only(ledger: Ledger, rules: Settings, sql: Sql) -> None:
    claim = await delivering(ledger, await reported(ledger))
    await ledger.reports.finish(claim, judged(claim, down(), rules))
    for table in ("attempts", "attempt_results"):
        for statement in (f"UPDATE {table} SET number = 9", f"DELETE FROM {table}", f"TRUNCATE {table}"):  # noqa: S608
            with pytest.raises(asyncpg.RestrictViolationError):
                await sql.execute(statement)
        async with sql.transaction():
            await sql.execute("SET LOCAL jobnet.retention = 'on'")
            assert await sql.execute(f"DELETE FROM {table}") == "DELETE 1"  # noqa: S608


# -- joined --------------------------------------------------------------------------------------------------------


async def joining(ledger: Ledger, cpr: str, failed_request: Any, **changes: Any) -> NewReport:
    asked = ask(cpr, type="report.citizen.v1", turn=False)
    report = report_on(asked, kind=ReportKind.CITIZEN, joins=failed_request, **changes)
    await ledger.requests.settle(await claimed(ledger, asked), ending(Status.DONE, report=report))
    return report


async def test_a_citizens_report_waits_for_the_request_it_names(ledger: Ledger, sql: Sql) -> None:
    booking = ask(ANN)
    claim = await claimed(ledger, booking)
    report = await joining(ledger, ANN, booking.request_id)
    assert await ledger.reports.joins.joinable(10) == []
    assert await handed_over(ledger) == []
    await ledger.requests.settle(claim, failed(None))
    [found] = await ledger.reports.joins.joinable(10)
    assert (found.report_id, found.content, found.failed_type) == (
        report.report_id,
        report.content,
        booking.type,
    )
    assert (found.failed, found.failed_answer) == (booking.message, failed(None).answer)
    at = report.occurred_at - timedelta(minutes=3)
    assert await ledger.reports.joins.join(found.report_id, b"with more", 2, at)
    assert not await ledger.reports.joins.join(found.report_id, b"twice", 3, at)
    row = await report_row(sql, report.report_id)
    assert (row["error_code"], row["occurred_at"]) == (2, at)
    assert (await delivering(ledger, report.report_id)).content == b"with more"


async def test_a_report_is_joined_although_the_answer_cannot_be_decrypted(ledger: Ledger, sql: Sql) -> None:
    booking = ask(ANN)
    await ledger.requests.settle(await claimed(ledger, booking), failed(None))
    report = await joining(ledger, ANN, booking.request_id)
    await sql.execute("UPDATE requests SET answer = '\\x0102' WHERE request_id = $1", booking.request_id)
    [found] = await ledger.reports.joins.joinable(10)
    assert (found.failed, found.failed_answer) == (booking.message, None)
    assert await ledger.reports.joins.join(found.report_id, None)
    row = await report_row(sql, report.report_id)
    assert (row["error_code"], row["occurred_at"]) == (report.error_code, report.occurred_at)


async def test_another_citizens_request_is_not_joined(ledger: Ledger) -> None:
    booking = ask(BEN)
    await ledger.requests.settle(await claimed(ledger, booking), failed(None))
    report = await joining(ledger, ANN, booking.request_id)
    [found] = await ledger.reports.joins.joinable(10)
    assert (found.report_id, found.failed, found.failed_type) == (report.report_id, None, None)


async def test_a_request_of_before_a_new_token_key_is_joined(opened: Openers) -> None:
    booking = ask(ANN)
    old = await opened(tokens=("t1",))
    await old.requests.settle(await claimed(old, booking), failed(None))
    new = await opened(tokens=("t1", "t2"))
    await joining(new, ANN, booking.request_id)
    [found] = await new.reports.joins.joinable(10)
    assert found.failed == booking.message


async def test_after_five_minutes_a_report_goes_unjoined(ledger: Ledger, sql: Sql) -> None:
    report = await joining(ledger, ANN, uuid4())
    await travel(sql, 299)
    assert await ledger.reports.joins.joinable(10) == []
    await travel(sql, 301)
    [found] = await ledger.reports.joins.joinable(10)
    assert (found.report_id, found.failed) == (report.report_id, None)


async def test_a_joining_report_that_cannot_be_decrypted_ends_dead(ledger: Ledger, sql: Sql) -> None:
    report = await joining(ledger, ANN, uuid4())
    await sql.execute("UPDATE reports SET content = '\\x0102'")
    await travel(sql, 301)
    assert await ledger.reports.joins.joinable(10) == []
    [handed] = await handed_over(ledger)
    assert await ledger.reports.claim(report.report_id, handed.number) is None
    assert await state_of(sql, report.report_id) == "dead"


# -- counted -------------------------------------------------------------------------------------------------------


async def test_every_report_and_failure_is_counted_once(ledger: Ledger, rules: Settings, sql: Sql) -> None:
    for _ in range(2):
        await reported(ledger, merge=b"x")
    claim = await delivering(ledger, await reported(ledger, supplier=SOUTH))
    await ledger.reports.finish(claim, judged(claim, refused(), rules))
    rows = await sql.fetch("SELECT supplier, state, cause, count FROM reports ORDER BY supplier")
    assert [tuple(row) for row in rows] == [(NORTH, "handed", None, 2), (SOUTH, "dead", "unknown-offer", 1)]


async def test_nothing_personal_is_printed(ledger: Ledger) -> None:
    asked = ask(ANN)
    report = report_on(asked, merge=ANN.encode())
    claim = await delivering(ledger, await reported(ledger, asked))
    assert ANN not in repr((report, failed(report), claim, Cpr(ANN)))
