"""Flow: the counts of each process per minute; nothing is counted twice, nothing is personal."""

from __future__ import annotations

from uuid import uuid4

import pytest

from broker.errors import LedgerAway
from broker.ledger.operators.flow import MOST_KEYS, Flow, Rollup, figures_of, flow_of
from broker.ledger.postgres.connections import Pool, Server
from broker.ledger.postgres.reachability import Availability
from broker.telemetry.counters import Counters
from tests.ledger.report_support import travel
from tests.ledger.support import Sql


@pytest.fixture
def lines(dsn: str) -> Pool:
    return Pool(Server(dsn, 5), Availability(), 1)


def test_counts_are_summed_by_what_they_mean() -> None:
    tally = Counters()
    for status, code in (("done", None), ("failed", 3), ("failed", 4)):
        tally.arrived("booking.book.v1")
        tally.answered("booking.book.v1", status, code, 0.0)
    tally.reported("nordsoft")
    for verdict in ("later", "delivered", "kept", "dead"):
        tally.attempted("nordsoft", verdict, 0.0)
    tally.called("north", "create", "DONE", 0.1)
    assert {key: count for key, count in figures_of(tally.counted()).items() if count} == {
        ("request", "booking.book.v1"): 3,
        ("answer", "done"): 1,
        ("answer", "failed"): 2,
        ("created", "nordsoft"): 1,
        ("delivered", "nordsoft"): 1,
        ("dead", "nordsoft"): 1,
    }


async def test_processes_write_what_came_since_and_a_minute_sums_them(lines: Pool, sql: Sql) -> None:
    tallies = [Counters(), Counters()]
    rollups = [Rollup(lines, uuid4(), tally.counted) for tally in tallies]
    for _ in range(3):
        for tally, rollup in zip(tallies, rollups, strict=True):
            tally.arrived("query.offers.v1")
            tally.reported("nordsoft")
            await rollup.write()
    flow = await told(sql)
    assert flow.total("requests") == {"query.offers.v1": 6}
    assert flow.total("created") == {"nordsoft": 6}
    await lines.close()


async def test_what_has_not_changed_is_not_written(lines: Pool, sql: Sql) -> None:
    tally = Counters()
    rollup = Rollup(lines, uuid4(), tally.counted)
    await rollup.write()
    assert await sql.fetchval("SELECT count(*) FROM flow") == 0
    tally.arrived("query.offers.v1")
    await rollup.write()
    await rollup.write()
    assert await sql.fetchval("SELECT sum(count) FROM flow") == 1
    await lines.close()


async def test_what_could_not_be_written_is_written_later(dsn: str, lines: Pool, sql: Sql) -> None:
    tally = Counters()
    away = Pool(Server("postgresql://postgres@127.0.0.1:9/nothing", 1), Availability(), 1)
    rollup = Rollup(away, uuid4(), tally.counted)
    tally.arrived("query.offers.v1")
    with pytest.raises(LedgerAway):
        await rollup.write()
    await rollup.write_last()  # a stop is not held up by it
    rollup._pool = lines
    await rollup.write()
    assert (await told(sql)).total("requests") == {"query.offers.v1": 1}
    await lines.close()


async def test_one_process_writes_a_bounded_number_of_rows(lines: Pool, sql: Sql) -> None:
    rollup = Rollup(lines, uuid4(), lambda: {("created", f"supplier-{n}"): 1 for n in range(2 * MOST_KEYS)})
    await rollup.write()
    assert await sql.fetchval("SELECT count(*) FROM flow") == MOST_KEYS
    await lines.close()


async def test_every_step_is_there_also_without_any_count(sql: Sql) -> None:
    await sql.execute(
        "INSERT INTO flow SELECT date_trunc('minute', now()) - interval '30 minutes', gen_random_uuid(), 'answer',"
        " 'done', 7"
    )
    flow = await told(sql, hours=2, step=10)
    assert len(flow.steps) == 12
    assert [sum(step.answers.values()) for step in flow.steps if step.answers] == [7]
    assert (await told(sql, hours=0.25)).total("answers") == {}


async def test_a_long_while_in_short_steps_is_cut_to_a_bounded_number_of_them(sql: Sql) -> None:
    assert len((await told(sql, hours=14 * 24, step=1)).steps) == 24 * 60


async def test_it_is_told_from_the_ledgers_clock(lines: Pool, sql: Sql) -> None:
    tally = Counters()
    tally.arrived("query.offers.v1")
    await travel(sql, 86_400.0)
    await Rollup(lines, uuid4(), tally.counted).write()
    assert (await told(sql)).total("requests") == {"query.offers.v1": 1}
    await lines.close()


async def told(sql: Sql, *, hours: float = 1, step: int = 1) -> Flow:
    return await flow_of(sql, hours, step)
