"""Conservation: sums that close over any states, and each kind of gap found by its id."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ledger.ledger import Ledger
from broker.ledger.postgres.connections import Server
from broker.ledger.upkeep.conservation import GAPS, KNOWN, Balance, Conservation, Gap, balance_of
from schemas.codes import Status
from tests.ledger.report_support import (
    NORTH,
    delivering,
    failed,
    judged,
    report_on,
    report_settings,
    reported,
)
from tests.ledger.support import Sql, ask, claimed, ending, settings_for, uncertain

STATES = [(table, state) for table, states in KNOWN.items() for state in states]


@given(st.dictionaries(st.sampled_from(STATES), st.integers(0, 10**9)))
def test_both_sums_close_over_any_rows_in_known_states(counts: dict[tuple[str, str], int]) -> None:
    seen = balance_of(counts)
    assert seen.complete
    assert seen.accepted == seen.answered + seen.in_flight + seen.put_aside
    assert seen.created == seen.delivered + seen.waiting + seen.dead + seen.discarded


@pytest.mark.parametrize("table", KNOWN)
def test_a_state_that_is_in_no_sum_is_a_gap(table: str) -> None:
    assert balance_of({(table, "evaporated"): 1}).gaps == (Gap("unknown-state", None),)


async def look(dsn: str, *codes: str) -> Balance:
    return await Conservation(settings_for(dsn), Server(dsn, 5), codes).read_balance()


async def age(sql: Sql, table: str, column: str, key: str, which: UUID) -> None:
    """Ten minutes ago, for one row."""
    await sql.execute(
        f"UPDATE {table} SET {column} = clock_timestamp() - interval '10 minutes' WHERE {key} = $1",  # noqa: S608
        which,
    )


async def nobody_lives(sql: Sql) -> None:
    await sql.execute("UPDATE workers SET stopped_at = clock_timestamp()")


async def test_a_ledger_at_work_is_accounted_for(ledger: Ledger, sql: Sql, dsn: str) -> None:
    # Given one of each: done, failed and reported, delivered, uncertain, running
    await ledger.requests.settle(await claimed(ledger, ask()), ending())
    claim = await delivering(ledger, await reported(ledger))
    await ledger.reports.finish(claim, judged(claim, None, report_settings(dsn)))
    await reported(ledger)
    await ledger.requests.settle(await claimed(ledger, ask()), uncertain())
    held = await claimed(ledger, ask())
    # Then both sums close, and nothing is a gap
    seen = await look(dsn, f"{NORTH} 4")
    assert seen.gaps == ()
    assert (seen.accepted, seen.answered, seen.in_flight) == (5, 3, 2)
    assert (seen.created, seen.delivered, seen.waiting) == (2, 1, 1)
    assert held.owner == ledger.owner


async def test_a_request_that_nobody_living_has_is_named(ledger: Ledger, sql: Sql, dsn: str) -> None:
    running, unsure = ask(), ask()
    await claimed(ledger, running)
    await ledger.requests.settle(await claimed(ledger, unsure), uncertain())
    await age(sql, "requests", "deadline_at", "request_id", running.request_id)
    await age(sql, "requests", "verify_due_at", "request_id", unsure.request_id)
    # While its owner lives it is in flight; what is due and unowned is not
    assert (await look(dsn)).gaps == (Gap("verification-overdue", unsure.request_id),)
    await ledger.set_ready(False)
    await nobody_lives(sql)
    assert Gap("running-without-owner", running.request_id) in (await look(dsn)).gaps


async def test_a_report_that_vanished_is_named_by_what_tells_of_it(
    ledger: Ledger, sql: Sql, dsn: str
) -> None:
    report_id = await reported(ledger)
    claim = await delivering(ledger, report_id)
    await ledger.reports.finish(claim, judged(claim, None, report_settings(dsn)))
    await sql.execute("DELETE FROM reports WHERE report_id = $1", report_id)
    assert set((await look(dsn)).gaps) == {
        Gap("report-missing", report_id),
        Gap("attempt-without-report", report_id),
    }


async def test_a_report_whose_state_and_attempts_disagree_is_named(
    ledger: Ledger, sql: Sql, dsn: str
) -> None:
    never, twice = await reported(ledger), await reported(ledger)
    claim = await delivering(ledger, twice)
    await ledger.reports.finish(claim, judged(claim, None, report_settings(dsn)))
    await sql.execute(
        "UPDATE reports SET state = 'delivered', settled_at = ledger_now() WHERE report_id = $1", never
    )
    await sql.execute("UPDATE reports SET state = 'waiting' WHERE report_id = $1", twice)
    assert set((await look(dsn)).gaps) == {
        Gap("delivered-without-attempt", never),
        Gap("taken-over-and-still-open", twice),
    }


async def test_a_report_that_is_stuck_on_its_way_is_named(ledger: Ledger, sql: Sql, dsn: str) -> None:
    held, handed, joining = await reported(ledger), await reported(ledger), await reported(ledger)
    for report_id, state in ((held, "delivering"), (handed, "handed"), (joining, "joining")):
        await sql.execute(
            "UPDATE reports SET state = $2, owner = $3, handed_at = ledger_now() WHERE report_id = $1",
            report_id,
            state,
            uuid4(),
        )
        assert (await look(dsn)).gaps == ()
    for report_id, column in ((held, "handed_at"), (handed, "handed_at"), (joining, "due_at")):
        await age(sql, "reports", column, "report_id", report_id)
    assert {gap.id for gap in (await look(dsn)).gaps} == {held, handed, joining}


async def test_a_promised_report_that_was_never_made_is_named(ledger: Ledger, sql: Sql, dsn: str) -> None:
    words, proved = ask(type="report.citizen.v1", turn=False), ask(supplier=NORTH)
    await ledger.requests.settle(await claimed(ledger, words), ending())
    await ledger.requests.settle(await claimed(ledger, proved), ending(Status.FAILED, error_code=4))
    await sql.execute("UPDATE requests SET corrected = true WHERE request_id = $1", proved.request_id)
    # A supplier that does not want to be told is promised nothing
    assert (await look(dsn)).gaps == (Gap("receipt-without-report", words.request_id),)
    assert Gap("not-booked-without-report", proved.request_id) in (await look(dsn, f"{NORTH} 4")).gaps


async def test_what_retention_may_have_deleted_is_no_gap(ledger: Ledger, sql: Sql, dsn: str) -> None:
    asked = ask()
    report = report_on(asked)
    await ledger.requests.settle(await claimed(ledger, asked), failed(report))
    await sql.execute("DELETE FROM reports")
    await sql.execute("UPDATE requests SET settled_at = settled_at - interval '31 days'")
    assert (await look(dsn)).complete


async def test_the_chore_logs_each_kind_of_gap_once(
    ledger: Ledger, sql: Sql, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = {str(await reported(ledger)), str(await reported(ledger))}
    await sql.execute("DELETE FROM reports")
    seen = await Conservation(settings_for(dsn), Server(dsn, 5)).check()
    assert [gap.kind for gap in seen.gaps] == ["report-missing"] * 2
    written = "".join(capsys.readouterr())
    assert written.count("conservation-gap") == 1
    assert all(report_id in written for report_id in gone)


def test_every_kind_of_gap_has_a_name_of_its_own_and_a_meaning() -> None:
    assert len({kind for kind, _, _ in GAPS}) == len(GAPS)
    assert all(meaning for _, meaning, _ in GAPS)
