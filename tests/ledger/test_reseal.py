"""Key rotation: everything is sealed again while brokers work, citizens are found, old keys retire."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from broker.dead_letters.intake import LetterReader
from broker.ledger.audit_log import Actor
from broker.ledger.ledger import Ledger
from broker.ledger.model import CitizenBusy, Settled
from broker.ledger.postgres.connections import Server
from broker.ledger.upkeep.key_columns import LOGGED_FOR, SEALED_TABLES
from broker.ledger.upkeep.reseal import KeyUse, Reseal, ResealProgress, ResealSummary
from broker.ledger.upkeep.table_walk import Walk
from broker.rabbitmq import Arrival, FetchedMessage
from broker.sealing import KeyMissing, Sealer
from config.settings import Settings, build
from schemas.codes import Status
from schemas.personal import Cpr
from tests.ledger.dead import operations_of, sealed_report
from tests.ledger.support import (
    ANN,
    BEN,
    Sql,
    ask,
    citizen,
    claimed,
    ending,
    key,
    left_uncertain,
    settings_for,
)

ROOT = Path(__file__).parents[2]


def keyed(dsn: str, sealing: str, tokens: str) -> Settings:
    """Settings that seal with the last of `sealing` ("s1 s2") and know the token keys, oldest first."""
    names, order = sealing.split(), tokens.split()
    keys = {
        "sealing": {name: key(int(name[1:])) for name in names},
        "seal_with": names[-1],
        "tokens": {name: key(10 + int(name[1:])) for name in order},
        "token_order": order,
    }
    base = settings_for(dsn)
    url = base.rabbitmq.url.get_secret_value()
    changed = build({"rabbitmq": {"url": url}, "ledger": {"dsn": dsn}, "keys": keys})
    return base.model_copy(update={"keys": changed.keys})


@asynccontextmanager
async def ledger_of(settings: Settings) -> AsyncIterator[Ledger]:
    async with Ledger.open(settings, Sealer(settings.keys)) as ledger:
        yield ledger


async def resealed(settings: Settings, **more: Any) -> ResealSummary:
    assert settings.ledger.dsn is not None
    target = Server(settings.ledger.dsn.get_secret_value(), 10)
    return await Reseal(settings, Sealer(settings.keys), target, **more).run()


def key_of(done: ResealSummary, key_id: str) -> KeyUse:
    return next(one for one in done.keys if one.key_id == key_id)


async def import_message(settings: Settings, body: bytes) -> UUID:
    """A dead message, as reconciliation imports it."""
    arrival = Arrival("jobnet.bookings.dead", body, "booking.book.v1", reply_to="jobnet.answers.x")
    message = LetterReader(Sealer(settings.keys)).foreign(
        FetchedMessage(arrival, "jobnet.requests", "booking.book")
    )
    async with operations_of(settings) as operations:
        return (await operations.places.import_messages([message]))[0]


async def a_day(settings: Settings, sql: Sql) -> dict[str, Any]:
    """Something of every kind that is sealed: of Ann, and under the keys of `settings`."""
    async with ledger_of(settings) as ledger:
        done, doubtful = ask(ANN), ask(citizen())
        secret = {"answer": b'{"status":"failed","cpr":"masked"}'}
        await ledger.requests.settle(await claimed(ledger, done), ending(Status.FAILED, **secret))
        await left_uncertain(ledger, doubtful)
    report = await sealed_report(sql, Sealer(settings.keys))
    message = await import_message(
        settings, b'{"requestId":"%s","cpr":"%s"}' % (str(uuid4()).encode(), ANN.encode())
    )
    unreadable = await import_message(settings, b"\xff not JSON")
    return {
        "done": done,
        "doubtful": doubtful,
        "report": report,
        "message": message,
        "unreadable": unreadable,
    }


async def opens(settings: Settings, sql: Sql) -> int:
    """How many sealed values open under these keys; raises if one does not."""
    sealer, count = Sealer(settings.keys), 0
    for table in SEALED_TABLES:
        for row in await sql.fetch(f"SELECT * FROM {table.table}"):  # noqa: S608  our own names
            for column, name in table.fields.items():
                if row[column] is not None:
                    sealer.open(row[column], of=str(row[table.key]), field=name)
                    count += 1
    return count


async def found(settings: Settings, cpr: str) -> set[UUID]:
    """Everything of this citizen: what `find` of the operators finds."""
    by = Actor("bo", "the citizen asked")
    async with operations_of(settings) as operations:
        return {one.id for one in await operations.people.find(Cpr(cpr), by)}


async def test_after_a_reseal_the_old_keys_are_not_needed_and_citizens_are_found(dsn: str, sql: Sql) -> None:
    before = keyed(dsn, "s1", "t1")
    day = await a_day(before, sql)
    between, after = keyed(dsn, "s1 s2", "t1 t2"), keyed(dsn, "s2", "t2")
    with pytest.raises(KeyMissing):
        await opens(after, sql)
    done = await resealed(between)
    assert (done.written, done.broken) == (5, 0)
    assert await opens(after, sql) == 2 + 2 + 1 + 2 + 2
    assert await found(after, ANN) == {day["done"].request_id, day["report"], day["message"]}
    assert key_of(done, "s1").rows == {}
    assert done.may_retire == ["s1"]


async def test_a_second_run_writes_nothing(dsn: str, sql: Sql) -> None:
    await a_day(keyed(dsn, "s1", "t1"), sql)
    settings = keyed(dsn, "s1 s2", "t1 t2")
    await resealed(settings)
    assert (await resealed(settings)).written == 0


async def test_a_held_turn_stays_as_it_is_and_still_holds(dsn: str, sql: Sql) -> None:
    before, between = keyed(dsn, "s1", "t1"), keyed(dsn, "s1 s2", "t1 t2")
    async with ledger_of(before) as old, ledger_of(between) as new:
        first = ask(BEN)
        claim = await claimed(old, first)
        turn = await sql.fetchrow("SELECT turn, turn_key FROM requests")
        done = await resealed(between)
        assert await sql.fetchrow("SELECT turn, turn_key FROM requests") == turn
        assert isinstance(await new.requests.claim(ask(BEN)), CitizenBusy)
        assert key_of(done, "t1").rows["requests.turn_key: turns that are held"] == 1
        assert await old.requests.settle(claim, ending()) is not None


async def test_what_names_a_token_key_keeps_it_until_retention(dsn: str, sql: Sql) -> None:
    await a_day(keyed(dsn, "s1", "t1"), sql)
    settings = keyed(dsn, "s1 s2", "t1 t2")
    done = await resealed(settings)
    assert key_of(done, "t1").rows == {
        "requests.business_key: recognising a repeated request": 2,
        "requests.turn_key: turns that are held": 1,
    }
    await sql.execute("DELETE FROM requests")
    await found(keyed(dsn, "s1", "t1"), ANN)  # logged by a token of t1, which nobody can make again
    done = await resealed(settings)
    assert key_of(done, "t1").rows == {LOGGED_FOR: 1}
    assert done.may_retire == ["s1", "t1"]


async def test_a_merge_token_counts_as_long_as_something_may_be_merged(dsn: str, sql: Sql) -> None:
    settings = keyed(dsn, "s1", "t1 t2")
    await sealed_report(sql, Sealer(settings.keys))
    await sql.execute("UPDATE reports SET merge_token = 'x', merge_key = 't1'")
    assert key_of(await resealed(settings), "t1").rows == {"reports.merge_key: merging equal failures": 1}
    await sql.execute("UPDATE reports SET created_at = now() - interval '11 minutes'")
    assert "t1" in (await resealed(settings)).may_retire


async def test_keys_that_seal_or_make_tokens_now_cannot_be_retired(dsn: str, sql: Sql) -> None:
    assert (await resealed(keyed(dsn, "s1", "t1"))).may_retire == []
    assert (await resealed(keyed(dsn, "s1 s2", "t1 t2"))).may_retire == ["s1", "t1"]


async def test_working_brokers_and_a_reseal_lose_nothing_of_each_other(dsn: str, sql: Sql) -> None:
    """Old processes go on sealing with the old key meanwhile; another run takes that along."""
    before, between = keyed(dsn, "s1", "t1"), keyed(dsn, "s1 s2", "t1 t2")
    answers: dict[UUID, bytes] = {}
    asks = {}
    over = asyncio.Event()

    async def work(ledger: Ledger) -> None:
        while not over.is_set():
            wanted = ask()
            answer = b"answer of %s" % wanted.request_id.bytes
            await ledger.requests.settle(await claimed(ledger, wanted), ending(answer=answer))
            answers[wanted.request_id], asks[wanted.request_id] = answer, wanted

    async with ledger_of(before) as old, ledger_of(between) as new:
        workers = [asyncio.create_task(work(ledger)) for ledger in (old, new) for _ in range(10)]
        for _ in range(4):
            await resealed(between)
        over.set()
        await asyncio.gather(*workers)
    assert len(answers) > 100
    done = await resealed(between)
    assert (done.broken, key_of(done, "s1").rows) == (0, {})
    after = keyed(dsn, "s2", "t1 t2")
    async with ledger_of(after) as ledger:
        for request_id, answer in answers.items():
            again = await ledger.requests.claim(asks[request_id])
            assert isinstance(again, Settled)
            assert again.ending.answer == answer


async def test_a_row_that_changed_after_it_was_read_is_not_overwritten(
    dsn: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = await a_day(keyed(dsn, "s1", "t1"), sql)
    settings = keyed(dsn, "s1 s2", "t1 t2")
    request_id = day["done"].request_id
    newer = Sealer(keyed(dsn, "s1", "t1").keys).seal(b"newer", of=str(request_id), field="answer")
    as_it_is, changed = Walk.try_run, False

    async def between(self: Walk, work: Any, default: Any) -> Any:
        nonlocal changed
        if not changed:
            changed = True
            await sql.execute("UPDATE requests SET answer = $2 WHERE request_id = $1", request_id, newer)
        return await as_it_is(self, work, default)

    monkeypatch.setattr(Walk, "try_run", between)
    done = await resealed(settings)
    stored = await sql.fetchval("SELECT answer FROM requests WHERE request_id = $1", request_id)
    assert Sealer(settings.keys).open(stored, of=str(request_id), field="answer") == b"newer"
    assert key_of(done, "s1").rows == {}, "the next round took it"


async def test_a_row_that_somebody_holds_is_not_waited_for_and_is_counted(dsn: str, sql: Sql) -> None:
    await a_day(keyed(dsn, "s1", "t1"), sql)
    settings = keyed(dsn, "s1 s2", "t1 t2")
    async with sql.transaction():
        await sql.execute("SELECT FROM reports FOR UPDATE")
        done = await resealed(settings)
        assert key_of(done, "s1").rows == {"reports.content": 1}
        assert "s1" not in done.may_retire
    assert "s1" in (await resealed(settings)).may_retire


async def test_rows_that_do_not_open_are_counted_and_left(dsn: str, sql: Sql) -> None:
    day = await a_day(keyed(dsn, "s1", "t1"), sql)
    await sql.execute("UPDATE reports SET content = set_byte(content, 30, get_byte(content, 30) # 1)")
    done = await resealed(keyed(dsn, "s1 s2", "t1 t2"))
    assert (done.broken, done.written) == (1, 4)
    assert key_of(done, "s1").rows == {"reports.content": 1}
    gone = await resealed(keyed(dsn, "s3", "t3"))
    assert gone.broken == 5
    assert not key_of(gone, "s2").configured
    assert day


async def test_a_replay_that_comes_back_after_a_reseal_is_still_the_same_letter(dsn: str, sql: Sql) -> None:
    before, after = keyed(dsn, "s1", "t1"), keyed(dsn, "s1 s2", "t1 t2")
    body = b'{"cpr":"%s"}' % ANN.encode()
    letter = await import_message(before, body)
    await sql.execute("UPDATE dead_messages SET state = 'replayed'")
    await resealed(after)
    arrival = Arrival("jobnet.bookings.dead", body, "booking.book.v1", message_id="another")
    message = LetterReader(Sealer(after.keys)).foreign(
        FetchedMessage(arrival, "jobnet.requests", "booking.book")
    )
    async with operations_of(after) as operations:
        assert await operations.places.import_messages([message]) == [letter]


async def test_every_sealed_column_and_every_key_id_of_the_tables_has_its_place(sql: Sql) -> None:
    rows = await sql.fetch(
        "SELECT table_name || '.' || column_name AS name FROM information_schema.columns"
        " JOIN information_schema.tables USING (table_schema, table_name) WHERE table_schema = 'public'"
        " AND table_type = 'BASE TABLE' AND (data_type = 'bytea' OR column_name LIKE '%\\_key')"
    )
    hmacs = {"requests.turn", "requests.business_hmac", "reports.merge_token", "operator_log.citizen_token"}
    numbers = {"reports.try_key"}  # counts x-requestIds
    known = hmacs | numbers | {LOGGED_FOR.partition(":")[0]}
    for table in SEALED_TABLES:
        columns = [*table.fields, "citizen_token", "citizen_key", *(key.column for key in table.kept)]
        columns += ["same_token", "same_key"] if table.same else []
        known |= {f"{table.table}.{column}" for column in columns}
    assert {row["name"] for row in rows} == known


async def test_progress_reaches_the_end_of_each_table(dsn: str, sql: Sql) -> None:
    await a_day(keyed(dsn, "s1", "t1"), sql)
    told: list[ResealProgress] = []
    await resealed(keyed(dsn, "s1 s2", "t1 t2"), on_progress=told.append)
    ends = {(one.phase, one.table): (one.looked_at, one.total) for one in told}
    assert ends[("reseal", "requests")] == ends[("count", "requests")] == (2, 2)


# -- as a person does it ---------------------------------------------------------------------------------------------


def environment(settings: Settings) -> dict[str, str]:
    assert settings.ledger.dsn is not None
    keys = settings.keys
    values = {
        "RABBITMQ__URL": "amqp://x:x@127.0.0.1/",
        "LEDGER__DSN": settings.ledger.dsn.get_secret_value(),
        "KEYS__SEALING": json.dumps(
            {name: one.get_secret_value() for name, one in keys.sealing.items()}, default=_b64
        ),
        "KEYS__SEAL_WITH": keys.seal_with,
        "KEYS__TOKENS": json.dumps(
            {name: one.get_secret_value() for name, one in keys.tokens.items()}, default=_b64
        ),
        "KEYS__TOKEN_ORDER": json.dumps(keys.token_order),
    }
    return os.environ | {f"JOBNET_BROKER__{name}": value for name, value in values.items()}


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


async def command(settings: Settings, *words: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker", *words, stdout=pipe, stderr=pipe, env=environment(settings), cwd=ROOT
    )


async def test_a_reseal_that_is_killed_in_the_middle_goes_on_where_it_was(dsn: str, sql: Sql) -> None:
    before, between = keyed(dsn, "s1", "t1"), keyed(dsn, "s1 s2", "t1 t2")
    async with ledger_of(before) as ledger:
        for _ in range(10):
            await asyncio.gather(*(ledger.requests.record(ask(), ending()) for _ in range(300)))
    count = "SELECT count(*) FROM requests WHERE get_byte(message, 3) = ascii('2')"
    killed = await command(between, "ledger", "reseal")
    assert killed.stderr is not None
    assert b"reseal requests" in await killed.stderr.readline()
    killed.kill()
    await killed.communicate()
    part = await sql.fetchval(count)
    assert 0 < part < 3000
    process = await command(between, "ledger", "reseal", "--json")
    out, _ = await process.communicate()
    told = json.loads(out)
    assert (process.returncode, told["written"], told["may_retire"]) == (0, 3000 - part, ["s1"])
    assert await opens(keyed(dsn, "s2", "t2"), sql) == 6000


async def test_the_purge_prints_what_is_gone_from_each_table(dsn: str, sql: Sql) -> None:
    settings = keyed(dsn, "s1", "t1")
    async with ledger_of(settings) as ledger:
        await ledger.requests.record(ask(), ending())
    await sql.execute("UPDATE requests SET settled_at = now() - interval '31 days'")
    process = await command(settings, "ledger", "purge", "--json", "--as", "bo", "-m", "a test")
    out, err = await process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["requests"] == 1
    entry = await sql.fetchrow("SELECT actor, reason FROM operator_log WHERE action = 'ledger.purge'")
    assert tuple(entry) == ("bo", "a test")
    process = await command(settings, "ledger", "reseal")
    out, err = await process.communicate()
    assert (process.returncode, b"may be retired: none" in out) == (0, True), err
