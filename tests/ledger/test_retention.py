"""Retention: ended rows are deleted in time, open rows never, by one process at a time (docs/privacy.md#retention)."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from broker.ledger.audit_log import Actor
from broker.ledger.ledger import Ledger
from broker.ledger.model import Claimed
from broker.ledger.postgres.advisory_locks import PURGE
from broker.ledger.postgres.connections import Server
from broker.ledger.upkeep.retention import STEPS, Retention
from broker.ledger.upkeep.table_walk import Walk
from tests.ledger.dead import dead_booking, dead_reports
from tests.ledger.report_support import travel
from tests.ledger.support import Sql, ask, claimed, ending, left_uncertain, settings_for
from tests.support import poll

DAY = 86_400.0
BO = Actor("bo", "the disk is full")
DAYS = {
    "requests_days": 30,
    "reports_days": 90,
    "attempts_days": 90,
    "letters_days": 90,
    "replays_days": 90,
    "operator_log_days": 1825,
    "lane_changes_days": 90,
    "flow_days": 14,
}


WAITS_FOR_LOCK = """
SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database())
"""


def retention_of(dsn: str, **changes: Any) -> Retention:
    settings = settings_for(dsn)
    changed = settings.retention.model_copy(update={"purge_batch": 3, **DAYS, **changes})
    settings = settings.model_copy(update={"retention": changed})
    return Retention(settings, Server(dsn, 5))


@pytest.fixture
def retention(dsn: str) -> Retention:
    return retention_of(dsn)


async def there(sql: Sql, table: str, key: str, value: object) -> bool:
    statement = f"SELECT EXISTS (SELECT FROM {table} WHERE {key} = $1)"  # noqa: S608  our own names
    return bool(await sql.fetchval(statement, value))


async def request_there(sql: Sql, request_id: UUID) -> bool:
    return await there(sql, "requests", "request_id", request_id)


async def report_there(sql: Sql, report_id: UUID) -> bool:
    return await there(sql, "reports", "report_id", report_id)


async def purged(retention: Retention) -> dict[str, int]:
    counts = await retention.purge(BO)
    assert counts is not None
    return {table: count for table, count in counts.items() if count}


# -- requests --------------------------------------------------------------------------------------------------------


async def test_a_settled_request_is_deleted_after_its_days_and_is_a_new_one_then(
    ledger: Ledger, sql: Sql, retention: Retention
) -> None:
    wanted = ask()
    await ledger.requests.settle(await claimed(ledger, wanted), ending())
    await travel(sql, 29 * DAY)
    assert await purged(retention) == {}
    await travel(sql, 31 * DAY)
    assert await purged(retention) == {"requests": 1, "workers": 1}
    assert isinstance(await ledger.requests.claim(wanted), Claimed)


async def test_what_is_running_uncertain_or_unverified_is_never_deleted(
    ledger: Ledger, sql: Sql, retention: Retention
) -> None:
    running, doubtful = ask(), ask()
    claim = await claimed(ledger, running)
    await left_uncertain(ledger, doubtful)
    dead = await dead_booking(sql)
    await travel(sql, 4000 * DAY)
    await purged(retention)
    assert all([await request_there(sql, one) for one in (claim.request_id, doubtful.request_id, dead)])


@pytest.mark.parametrize("reference", ["request_id", "joins", "report_id"])
@pytest.mark.parametrize(
    ("state", "kept"), [("dead", True), ("waiting", True), ("joining", True), ("delivered", False)]
)
async def test_a_request_stays_as_long_as_a_report_that_is_open_refers_to_it(
    ledger: Ledger, sql: Sql, retention: Retention, reference: str, state: str, kept: bool
) -> None:
    wanted = ask()
    await ledger.requests.settle(await claimed(ledger, wanted), ending())
    [report_id] = await dead_reports(sql, state=state)
    if reference == "report_id":
        await sql.execute("UPDATE requests SET report_id = $1", report_id)
    else:
        await sql.execute(f"UPDATE reports SET {reference} = $1", wanted.request_id)  # noqa: S608  our own names
    await travel(sql, 31 * DAY)
    await purged(retention)
    assert await request_there(sql, wanted.request_id) is kept


async def test_a_request_stays_as_long_as_an_open_letter_or_an_unsent_event_is_about_it(
    ledger: Ledger, sql: Sql, retention: Retention
) -> None:
    lettered, unsent = ask(), ask()
    for wanted in (lettered, unsent):
        await ledger.requests.settle(await claimed(ledger, wanted), ending())
    await sql.execute("UPDATE requests SET event_due_at = now() WHERE request_id = $1", unsent.request_id)
    await dead_message(sql, "open", request_id=lettered.request_id)
    await travel(sql, 31 * DAY)
    await purged(retention)
    assert await request_there(sql, lettered.request_id)
    assert await request_there(sql, unsent.request_id)


async def test_a_discarded_booking_can_be_restored_until_its_days_are_over(
    sql: Sql, retention: Retention
) -> None:
    discarded, restored = await dead_booking(sql), await dead_booking(sql)
    await sql.executemany("INSERT INTO discarded_bookings VALUES ($1)", [(discarded,), (restored,)])
    await travel(sql, 89 * DAY)
    assert await purged(retention) == {}
    await sql.execute("DELETE FROM discarded_bookings WHERE request_id = $1", restored)
    await travel(sql, 91 * DAY)
    assert await purged(retention) == {"discarded_bookings": 1}
    assert not await request_there(sql, discarded)
    assert await request_there(sql, restored)


# -- reports and letters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["joining", "waiting", "handed", "delivering", "dead"])
async def test_an_open_report_and_its_attempts_are_never_deleted(
    sql: Sql, retention: Retention, state: str
) -> None:
    [report_id] = await dead_reports(sql, state="dead")
    await sql.execute("UPDATE reports SET state = $1, owner = $2", state, uuid4())
    await attempt(sql, report_id, 1)
    await travel(sql, 4000 * DAY)
    assert await purged(retention) == {}


@pytest.mark.parametrize("state", ["delivered", "discarded"])
async def test_a_report_that_ended_goes_with_its_attempts(sql: Sql, retention: Retention, state: str) -> None:
    [report_id] = await dead_reports(sql, state=state)
    for number in range(1, 8):
        await attempt(sql, report_id, number)
    await travel(sql, 89 * DAY)
    assert await purged(retention) == {}
    await travel(sql, 91 * DAY)
    assert await purged(retention) == {"reports": 1, "attempts": 7, "attempt_results": 7}
    assert await purged(retention) == {}


async def test_a_report_discarded_today_is_kept_though_it_died_long_ago(
    sql: Sql, retention: Retention
) -> None:
    [report_id] = await dead_reports(sql)
    await travel(sql, 91 * DAY)
    await sql.execute("UPDATE reports SET state = 'discarded', discarded_at = ledger_now()")
    await purged(retention)
    assert await report_there(sql, report_id)


async def test_a_report_stays_while_its_event_is_unsent_or_a_replay_is_going(
    sql: Sql, retention: Retention
) -> None:
    unsent, replayed = await dead_reports(sql, 2, state="delivered")
    await sql.execute("UPDATE reports SET event_due_at = now() WHERE report_id = $1", unsent)
    await replay(sql, "running", [replayed])
    await travel(sql, 4000 * DAY)
    assert await purged(retention) == {}
    await sql.execute("UPDATE reports SET event_due_at = NULL")
    await sql.execute("UPDATE replays SET state = 'done', ended_at = now()")
    assert await purged(retention) == {"reports": 2, "replay_items": 1, "replays": 1}


async def test_attempts_may_be_kept_longer_than_their_reports(dsn: str, sql: Sql) -> None:
    retention = retention_of(dsn, reports_days=10, attempts_days=20)
    [report_id] = await dead_reports(sql, state="delivered")
    await attempt(sql, report_id, 1)
    await travel(sql, 11 * DAY)
    assert await purged(retention) == {"reports": 1}
    await travel(sql, 21 * DAY)
    assert await purged(retention) == {"attempts": 1, "attempt_results": 1}


@pytest.mark.parametrize(
    ("state", "kept"), [("open", True), ("replaying", True), ("replayed", False), ("discarded", False)]
)
async def test_a_dead_message_is_deleted_when_it_was_replayed_or_discarded(
    sql: Sql, retention: Retention, state: str, kept: bool
) -> None:
    letter_id = await dead_message(sql, state)
    await travel(sql, 89 * DAY)
    assert await purged(retention) == {}
    await travel(sql, 91 * DAY)
    await purged(retention)
    assert await there(sql, "dead_messages", "letter_id", letter_id) is kept


@pytest.mark.parametrize(
    ("state", "kept"), [("canary", True), ("running", True), ("stopped", False), ("done", False)]
)
async def test_a_replay_goes_with_all_its_items_when_it_has_ended(
    sql: Sql, retention: Retention, state: str, kept: bool
) -> None:
    replay_id = await replay(sql, state, [uuid4() for _ in range(10)])
    await travel(sql, 91 * DAY)
    assert await purged(retention) == ({} if kept else {"replay_items": 10, "replays": 1})
    assert await there(sql, "replays", "replay_id", replay_id) is kept


# -- the log and the workers -----------------------------------------------------------------------------------------


async def test_the_operators_log_is_kept_for_years_and_only_retention_may_delete_from_it(
    sql: Sql, retention: Retention
) -> None:
    await sql.execute(
        "INSERT INTO operator_log (actor, action, reason, subject) VALUES ('bo', 'reveal', 'asked', 'x')"
    )
    with pytest.raises(asyncpg.RestrictViolationError):
        await sql.execute("DELETE FROM operator_log")
    await travel(sql, 1824 * DAY)
    assert await purged(retention) == {}
    await travel(sql, 1826 * DAY)
    assert await purged(retention) == {"operator_log": 1}


async def test_a_worker_is_forgotten_when_it_was_silent_for_long(
    ledger: Ledger, sql: Sql, retention: Retention
) -> None:
    gone, holding = uuid4(), uuid4()
    for one in (gone, holding):
        await sql.execute(
            "INSERT INTO workers VALUES ($1, 7, now(), now() - interval '31 days', now(), true)", one
        )
    claim = await claimed(ledger, ask())
    await sql.execute("UPDATE requests SET owner = $1 WHERE request_id = $2", holding, claim.request_id)
    assert await purged(retention) == {"workers": 1}
    assert await there(sql, "workers", "id", ledger.owner)
    assert await there(sql, "workers", "id", holding)


async def test_counts_and_the_history_of_lanes_are_deleted_on_their_time(
    sql: Sql, retention: Retention
) -> None:
    await sql.execute(
        "INSERT INTO flow SELECT date_trunc('minute', now()) - n * interval '23 hours', gen_random_uuid(), 'answer',"
        " 'done', 1 FROM generate_series(0, 19) AS n"
    )
    await sql.execute(
        "INSERT INTO lane_changes (at, supplier, before, state) SELECT now() - n * interval '20 days', 'nordsoft',"
        " 'open', 'parked' FROM generate_series(0, 5) AS n"
    )
    assert await purged(retention) == {"flow": 5, "lane_changes": 1}
    assert await purged(retention) == {}


# -- how it is done --------------------------------------------------------------------------------------------------


async def test_every_table_with_something_sealed_or_personal_is_purged(sql: Sql) -> None:
    rows = await sql.fetch(
        "SELECT DISTINCT table_name AS name FROM information_schema.columns JOIN information_schema.tables"
        " USING (table_schema, table_name) WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        " AND data_type = 'bytea'"
    )
    assert {row["name"] for row in rows} <= {step.table for step in STEPS}


async def test_a_purge_that_was_cut_off_is_simply_begun_again(
    sql: Sql, retention: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dead_reports(sql, 20, state="delivered")
    await travel(sql, 91 * DAY)
    pages = 0
    as_it_is = Walk.try_run

    async def cut_off(self: Walk, work: Any, default: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages == 4:
            raise KeyboardInterrupt
        return await as_it_is(self, work, default)

    monkeypatch.setattr(Walk, "try_run", cut_off)
    with pytest.raises(KeyboardInterrupt):
        await retention.purge(BO)
    monkeypatch.undo()
    left = await sql.fetchval("SELECT count(*) FROM reports")
    assert left == 20 - 3 * 3, "pages of purge_batch rows, each committed"
    assert await purged(retention) == {"reports": left}


async def test_a_row_that_somebody_holds_is_left_for_the_next_run(dsn: str, sql: Sql) -> None:
    retention = Retention(settings_for(dsn), Server(dsn, 0.6))  # a lock is waited for a third of it
    [held] = await dead_reports(sql, state="delivered")
    await travel(sql, 91 * DAY)
    async with sql.transaction():
        await sql.execute("SELECT FROM reports FOR UPDATE")
        assert await purged(retention) == {}
    assert await purged(retention) == {"reports": 1}
    assert not await report_there(sql, held)


async def test_a_report_restored_at_the_same_moment_is_not_deleted(
    sql: Sql, dsn: str, retention: Retention
) -> None:
    [report_id] = await dead_reports(sql, state="discarded")
    await travel(sql, 91 * DAY)
    restore = sql.transaction()
    await restore.start()
    await sql.execute("UPDATE reports SET state = 'dead', discarded_at = NULL")
    run = asyncio.create_task(purged(retention))
    await poll(lambda: sql.fetchval(WAITS_FOR_LOCK), what="the purge to wait for the row")
    await restore.commit()
    assert await run == {}
    assert await report_there(sql, report_id)


async def test_it_runs_when_a_day_is_over_and_every_process_knows(dsn: str, sql: Sql) -> None:
    first, second = retention_of(dsn), retention_of(dsn)
    assert await first.purge_when_due() is not None
    assert await second.purge_when_due() is None
    entry = await sql.fetchrow("SELECT actor, action, details::text FROM operator_log")
    assert (entry["actor"], entry["action"]) == ("jobnet-broker", "ledger.purge")
    assert '"requests": 0' in entry["details"]
    await travel(sql, DAY + 60)
    assert await retention_of(dsn).purge_when_due() is not None
    assert await retention_of(dsn).purge_when_due() is None


async def test_most_calls_ask_nobody(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    retention = retention_of(dsn)
    await retention.purge_when_due()

    def opened(*_: object) -> None:
        raise AssertionError("it went to the ledger")

    monkeypatch.setattr("broker.ledger.upkeep.retention.open_walk", opened)
    for _ in range(1000):
        assert await retention.purge_when_due() is None


async def test_one_process_at_a_time(dsn: str, sql: Sql) -> None:
    await sql.fetchval("SELECT pg_advisory_lock($1)", PURGE)
    assert await retention_of(dsn).purge_when_due() is None
    assert await retention_of(dsn).purge(BO) is None
    await sql.fetchval("SELECT pg_advisory_unlock($1)", PURGE)
    ran = await asyncio.gather(*(retention_of(dsn).purge_when_due() for _ in range(4)))
    assert len([counts for counts in ran if counts is not None]) == 1


async def test_who_was_overtaken_between_look_and_lock_does_not_purge_again(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_is = Walk.try_lock

    async def late(self: Walk, lock: int) -> bool:
        monkeypatch.setattr(Walk, "try_lock", as_it_is)
        assert await retention_of(dsn).purge_when_due() is not None
        return await as_it_is(self, lock)

    monkeypatch.setattr(Walk, "try_lock", late)
    assert await retention_of(dsn).purge_when_due() is None
    assert await sql.fetchval("SELECT count(*) FROM operator_log") == 1


# -- rows ------------------------------------------------------------------------------------------------------------


async def dead_message(sql: Sql, state: str, *, request_id: UUID | None = None) -> UUID:
    letter_id = uuid4()
    await sql.execute(
        "INSERT INTO dead_messages (letter_id, source_id, state, queue, cause, cause_class, request_id, body,"
        " same_key, same_token) VALUES ($1, $1, $2, 'q.dead', 'invalid', 'message', $3, '\\x00', 't1', '\\x00')",
        letter_id,
        state,
        request_id,
    )
    return letter_id


async def attempt(sql: Sql, report_id: UUID, number: int) -> None:
    await sql.execute(
        "INSERT INTO attempts VALUES ($1, $2, $3, now(), $4, false)", report_id, number, uuid4(), str(uuid4())
    )
    await sql.execute(
        "INSERT INTO attempt_results VALUES ($1, $2, now(), 'later', NULL, 500, NULL, 'x', 7, true, true, $3)",
        report_id,
        number,
        uuid4(),
    )


async def replay(sql: Sql, state: str, letters: list[UUID]) -> UUID:
    replay_id = uuid4()
    ended = "now()" if state in ("stopped", "done") else "NULL"
    await sql.execute(
        "INSERT INTO replays (replay_id, name, state, actor, reason, rate, ended_at)"  # noqa: S608  our own word
        f" VALUES ($1, 'some', $2, 'bo', 'repaired', 10, {ended})",
        replay_id,
        state,
    )
    await sql.executemany(
        "INSERT INTO replay_items (replay_id, letter_id, position, kind, fingerprint) VALUES ($1, $2, 1, 'report', 'f')",
        [(replay_id, letter) for letter in letters],
    )
    return replay_id
