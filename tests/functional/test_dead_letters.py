"""Reconciliation keeps the dead-letter queues equal to the ledger: real RabbitMQ, real PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pika
import pytest

from broker.dead_letters.headers import LETTER_ID, LETTER_TYPE, REASON, LetterProperties, properties_header
from broker.dead_letters.reconcile import Reconciler, ReconcileResult
from broker.dead_letters.replayer import Replayer
from broker.ledger.dead_letters.letter_model import Filter
from broker.ledger.dead_letters.places import Places
from broker.ledger.operators.operations import Operations
from broker.ledger.postgres.versions import bring_up_to_date
from broker.rabbitmq import FetchedMessage, QueueReader, Rabbit
from broker.sealing import Sealer
from config.settings import Settings
from tests.functional.dead_letters import ALL, BOOKINGS, LANE, QUERIES, UNROUTED, settings_of
from tests.ledger.dead import (
    BO,
    dead_again,
    dead_booking,
    dead_reports,
    letters_by_queue,
    operations_of,
    replay,
    state_of,
)
from tests.ledger.support import ANN, BEN, Sql
from tests.rabbitmq import foreign
from tests.support import poll


def dsn_of(settings: Settings) -> str:
    assert settings.ledger.dsn
    return settings.ledger.dsn.get_secret_value()


@dataclass
class DeadLetterSetup:
    """The queues and tables of one test."""

    url: str
    settings: Settings
    operations: Operations
    sql: Sql
    sealer: Sealer

    async def reconcile(self, *, rotate: bool = False) -> ReconcileResult:
        report = await Reconciler(self.settings, self.operations.places, self.sealer).reconcile(
            ALL, rotate=rotate
        )
        assert report is not None
        return report

    async def depths(self) -> dict[str, int]:
        found = {queue: await asyncio.to_thread(foreign.depth, self.url, queue) for queue in ALL}
        return {queue: depth for queue, depth in found.items() if depth}

    async def is_true(self) -> bool:
        return await self.depths() == await letters_by_queue(self.sql)

    async def put(self, queue: str, body: bytes, **properties: Any) -> None:
        message = (body, pika.BasicProperties(delivery_mode=2, **properties))
        await asyncio.to_thread(foreign.publish, self.url, queue, message)

    async def held(self, queue: str) -> list[Any]:
        """Every message of a queue, left there."""

        def look() -> list[Any]:
            with foreign.channel(self.url) as channel:
                got = []
                while (message := channel.basic_get(queue))[0]:
                    got.append(message)
                return got

        return await asyncio.to_thread(look)

    async def purge(self, queue: str) -> None:
        def work() -> None:
            with foreign.channel(self.url) as channel:
                channel.queue_purge(queue)

        await asyncio.to_thread(work)


@pytest.fixture
async def setup(vhost: str, database: str) -> AsyncIterator[DeadLetterSetup]:
    settings = settings_of(vhost, database)
    await bring_up_to_date(database)
    declare(vhost)
    sql = await asyncpg.connect(database)
    async with operations_of(settings) as operations:
        yield DeadLetterSetup(vhost, settings, operations, sql, Sealer(settings.keys))
    await sql.close()


def declare(url: str) -> None:
    with foreign.channel(url) as channel:
        channel.exchange_declare("jobnet.unrouted", "fanout", durable=True)
        channel.exchange_declare(
            "jobnet.requests", "topic", durable=True, arguments={"alternate-exchange": "jobnet.unrouted"}
        )
        for queue in (*ALL, "jobnet.bookings", "jobnet.queries"):
            arguments = {"x-queue-type": "quorum", "x-overflow": "reject-publish"}
            channel.queue_declare(queue, durable=True, arguments=arguments)
        channel.queue_bind(UNROUTED, "jobnet.unrouted")


class TestReconciliation:
    async def test_what_is_dead_in_the_ledger_lies_in_the_queue_with_ids_only(
        self, setup: DeadLetterSetup
    ) -> None:
        ids = await dead_reports(setup.sql, 3)
        booking = await dead_booking(setup.sql)
        await setup.reconcile()
        assert await setup.is_true()
        letters = await setup.held(LANE) + await setup.held(BOOKINGS)
        assert {UUID(m[1].headers[LETTER_ID]) for m in letters} == {*ids, booking}
        assert all(body == b"" and m.type == LETTER_TYPE for _, m, body in letters)

    async def test_a_reconciliation_without_differences_reads_nothing(self, setup: DeadLetterSetup) -> None:
        await dead_reports(setup.sql, 3)
        await setup.reconcile()
        again = await setup.reconcile()
        assert (again.read, again.published, again.dropped) == (0, 0, 0)

    async def test_a_new_letter_is_added_without_a_rotation(self, setup: DeadLetterSetup) -> None:
        await dead_reports(setup.sql, 3)
        await setup.reconcile()
        await dead_reports(setup.sql, 1)
        again = await setup.reconcile()
        assert (again.read, again.published) == (0, 1)
        assert await setup.is_true()

    async def test_discarded_and_replayed_letters_leave_the_queue(self, setup: DeadLetterSetup) -> None:
        ids = await dead_reports(setup.sql, 120)
        await setup.reconcile()
        await setup.operations.letters.discard(Filter(ids=tuple(ids[:7])), BO)
        await replay(setup.operations, ids=(ids[8],))
        await setup.operations.replays.step(lambda _: None, canary_wait=60)
        assert await state_of(setup.sql, ids[8]) == "waiting"
        await setup.reconcile()
        assert await setup.depths() == {LANE: 112}
        assert await setup.is_true()
        await setup.operations.letters.restore(Filter(ids=tuple(ids[:7])), BO)
        await setup.reconcile()
        assert await setup.depths() == {LANE: 119}

    async def test_a_purge_by_hand_is_repaired(self, setup: DeadLetterSetup) -> None:
        await dead_reports(setup.sql, 120)
        await setup.reconcile()
        await setup.purge(LANE)
        await setup.reconcile()
        assert await setup.depths() == {LANE: 120}

    async def test_copies_are_removed(self, setup: DeadLetterSetup) -> None:
        [report_id] = await dead_reports(setup.sql)
        headers = {LETTER_ID: str(report_id)}
        for _ in range(3):
            await setup.put(LANE, b"", type=LETTER_TYPE, headers=headers)
        await setup.reconcile()
        assert await setup.depths() == {LANE: 1}

    async def test_a_letter_exchanged_by_hand_is_noticed_by_a_rotation(self, setup: DeadLetterSetup) -> None:
        await dead_reports(setup.sql, 2)
        await setup.reconcile()
        await asyncio.to_thread(foreign.get, setup.url, LANE)
        await setup.put(LANE, b"?")
        assert (await setup.reconcile()).read == 0  # the numbers are equal
        await setup.reconcile(rotate=True)
        await setup.reconcile()
        assert await setup.depths() == {LANE: 3}
        assert await setup.is_true()

    async def test_only_one_process_is_at_it(self, setup: DeadLetterSetup) -> None:
        async with setup.operations.places.exclusive() as exclusive:
            assert exclusive
            other = Reconciler(setup.settings, setup.operations.places, setup.sealer)
            assert await other.reconcile(ALL) is None

    async def test_a_missing_queue_does_not_stop_the_others(self, setup: DeadLetterSetup) -> None:
        await dead_reports(setup.sql, supplier="aaa-unknown")
        await dead_reports(setup.sql)
        await setup.reconcile()
        assert await setup.depths() == {LANE: 1}


class TestForeignMessages:
    async def test_a_message_no_route_took_is_sealed_and_only_its_id_stays(
        self, setup: DeadLetterSetup
    ) -> None:
        body = json.dumps({"cpr": ANN, "requestId": str(uuid4()), "jobcenterkode": "10100"}).encode()
        message = (body, pika.BasicProperties(type="booking.buy.v1", reply_to="jobnet.answers.x"))
        await asyncio.to_thread(
            foreign.publish, setup.url, "booking.buy", message, exchange="jobnet.requests"
        )
        await setup.reconcile()
        [letter] = await setup.operations.letters.listed(Filter())
        assert (letter.kind, letter.cause, letter.type) == ("message", "unrouted", "booking.buy.v1")
        assert letter.jobcenter_code == "10100"
        [(_, properties, held)] = await setup.held(UNROUTED)
        assert (held, properties.headers[LETTER_ID]) == (b"", str(letter.letter_id))
        row = await setup.sql.fetchrow("SELECT * FROM dead_messages")
        assert ANN.encode() not in repr(tuple(row)).encode()
        assert setup.sealer.open(row["body"], of=str(letter.letter_id), field="body") == body

    @pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"{" * 5000, b"[]", b'{"cpr": 7}'])
    async def test_any_garbage_becomes_a_letter(self, setup: DeadLetterSetup, body: bytes) -> None:
        await setup.put(QUERIES, body, headers={"x": {"y": [1]}})
        await setup.reconcile()
        assert await setup.is_true()
        assert await letters_by_queue(setup.sql) == {QUERIES: 1}

    async def test_a_message_dead_lettered_by_the_broker_keeps_its_id_and_reason(
        self, setup: DeadLetterSetup
    ) -> None:
        letter_id = uuid4()
        sealed = setup.sealer.seal(b"not JSON", of=str(letter_id), field="body")
        headers = {LETTER_ID: str(letter_id), REASON: "invalid", "x-jobnet-fields": "body"}
        await setup.put(BOOKINGS, sealed, type=LETTER_TYPE, headers=headers)
        await setup.reconcile()
        [letter] = await setup.operations.letters.listed(Filter())
        assert (letter.letter_id, letter.cause, letter.cause_class) == (letter_id, "invalid", "message")
        [(_, _, held)] = await setup.held(BOOKINGS)
        assert held == b""

    async def test_a_forged_letter_is_a_foreign_message(self, setup: DeadLetterSetup) -> None:
        await setup.put(
            BOOKINGS, b"mine", type=LETTER_TYPE, headers={LETTER_ID: str(uuid4()), REASON: "x" * 99}
        )
        await setup.reconcile()
        [letter] = await setup.operations.letters.listed(Filter())
        assert letter.cause == "unknown"

    async def test_what_rabbitmq_gave_up_says_so(self, setup: DeadLetterSetup) -> None:
        """With its own dead-lettering: a delivery limit, here of one."""
        foreign.declare(
            setup.url,
            "limited",
            x_delivery_limit=1,
            x_dead_letter_exchange="",
            x_dead_letter_routing_key=BOOKINGS,
            x_dead_letter_strategy="at-least-once",
            x_overflow="reject-publish",
        )
        await setup.put("limited", b"{}", type="booking.book.v1")

        def kill() -> bool:
            with foreign.channel(setup.url) as channel:
                got = channel.basic_get("limited")
                if got[0]:
                    channel.basic_reject(got[0].delivery_tag, requeue=True)
            return foreign.depth(setup.url, BOOKINGS) == 1

        await poll(lambda: asyncio.to_thread(kill), what="a delivery limit reached")
        await setup.reconcile()
        [letter] = await setup.operations.letters.listed(Filter())
        assert (letter.cause, letter.cause_class, letter.type) == (
            "delivery-limit",
            "ours",
            "booking.book.v1",
        )
        assert await setup.is_true()


class TestCrash:
    async def test_a_reconciliation_that_dies_at_any_step_is_finished_by_the_next(
        self, setup: DeadLetterSetup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Acks that get lost make copies, as a crash does.
        monkeypatch.setattr(sys.modules["broker.rabbitmq.queue_reader"], "ACKS_SETTLE_S", 0.1)
        small = replace(setup, settings=settings_of(setup.url, dsn_of(setup.settings), pass_batch=3))
        step, more = 0, True
        while more:
            # Given letters to keep, to remove, to add and to take in
            ids = await dead_reports(setup.sql, 4)
            await small.reconcile()
            await setup.operations.letters.discard(Filter(ids=(ids[0],)), BO)
            await dead_reports(setup.sql, 1)
            bodies = {b"stranger %d of %d" % (number, step) for number in range(2)}
            for body in bodies:
                await setup.put(LANE, body)
            # When the process dies before this step
            with pytest.MonkeyPatch.context() as patch:
                more = await self._dies(small, step, patch)
            # Then later runs repair everything: no letter is missing, no foreign message is lost or doubled
            await poll(lambda: _passed(small), what=f"the queue made true after step {step}")
            messages = await setup.operations.letters.listed(Filter(kind="message"))
            assert {await self._body(setup, each.letter_id) for each in messages} == bodies, step
            assert len(messages) == len(bodies), step
            await setup.operations.letters.discard(Filter(queue=LANE), BO)
            step += 1
        assert step > 15

    @staticmethod
    async def _dies(setup: DeadLetterSetup, step: int, patch: pytest.MonkeyPatch) -> bool:
        """False if the reconciliation has fewer steps."""
        _cut_before(step, patch)
        try:
            await setup.reconcile()
        except _Cut:
            return True
        return False

    @staticmethod
    async def _body(setup: DeadLetterSetup, letter_id: UUID) -> bytes:
        sealed = await setup.sql.fetchval("SELECT body FROM dead_messages WHERE letter_id = $1", letter_id)
        return setup.sealer.open(sealed, of=str(letter_id), field="body")

    async def test_a_killed_process_is_repaired_by_the_next_reconciliation(
        self, setup: DeadLetterSetup
    ) -> None:
        ids = await dead_reports(setup.sql, 2000)
        await setup.reconcile()
        await setup.operations.letters.discard(Filter(ids=tuple(ids[:100])), BO)
        for number in range(3):
            process = await _passing(setup)
            await asyncio.sleep(
                0.1 + 0.2 * number
            )  # at some point of the run: there is no condition to wait for
            process.send_signal(signal.SIGKILL)
            await process.wait()
        await poll(lambda: _passed(setup), timeout=60, what="the queue made true again")
        assert await setup.depths() == {LANE: 1900}


async def _passed(setup: DeadLetterSetup) -> bool:
    done = await Reconciler(setup.settings, setup.operations.places, setup.sealer).reconcile(ALL)
    return done is not None and await setup.is_true()


async def _passing(setup: DeadLetterSetup) -> asyncio.subprocess.Process:
    """A process that rotates the queues for ever."""
    program = textwrap.dedent(
        """
        import asyncio, sys
        from broker.dead_letters.reconcile import Reconciler
        from broker.ledger.operators.operations import Operations
        from broker.sealing import Sealer
        from tests.functional.dead_letters import ALL, settings_of

        async def main():
            url, dsn = sys.stdin.read().split()
            settings = settings_of(url, dsn)
            async with Operations.open(settings, Sealer(settings.keys)) as operations:
                print("ready", flush=True)
                while True:
                    await Reconciler(settings, operations.places, Sealer(settings.keys)).reconcile(ALL, rotate=True)

        asyncio.run(main())
        """
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{setup.url}\n{dsn_of(setup.settings)}\n".encode())
    process.stdin.close()
    assert await process.stdout.readline() == b"ready\n"
    return process


ACKS_PASS_S = 0.15


class _Cut(Exception):
    """The process died here."""


def _cut_before(step: int, patch: pytest.MonkeyPatch) -> None:
    """Raise instead of the so-many-th call that touches RabbitMQ or the ledger, and of all later ones."""
    counted = itertools.count()

    def cutting(owner: type, name: str) -> None:
        real = getattr(owner, name)

        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if next(counted) >= step:
                await asyncio.sleep(ACKS_PASS_S)  # the worse crash: all earlier acks have reached RabbitMQ
                raise _Cut
            return await real(self, *args, **kwargs)

        patch.setattr(owner, name, call)

    for owner, names in (
        (QueueReader, ("get", "put", "ack")),
        (Places, ("begin_rotation", "keep", "import_messages", "record_placed", "end_rotation")),
    ):
        for name in names:
            cutting(owner, name)


class TestReplay:
    async def _replayer(self, setup: DeadLetterSetup, rabbit: Rabbit, canary_wait: float = 0.3) -> Replayer:
        return Replayer(
            setup.operations.replays,
            setup.sealer,
            rabbit.publish,
            may_reply_to=setup.settings.answers.allows,
            supplier_of=lambda _: None,
            canary_wait=canary_wait,
        )

    async def _put_aside(self, setup: DeadLetterSetup, body: bytes, properties: LetterProperties) -> UUID:
        letter_id = uuid4()
        of = str(letter_id)
        headers = {
            LETTER_ID: of,
            REASON: "invalid",
            **properties_header(setup.sealer.seal(properties.to_json(), of=of, field="properties")),
        }
        sealed = setup.sealer.seal(body, of=of, field="body")
        await setup.put(BOOKINGS, sealed, type=LETTER_TYPE, headers=headers)
        return letter_id

    @pytest.mark.parametrize(
        ("reply_to", "kept"), [("jobnet.answers.x", "jobnet.answers.x"), ("jobnet.bookings", None)]
    )
    async def test_a_message_goes_back_to_its_work_queue_as_it_was(
        self, setup: DeadLetterSetup, reply_to: str, kept: str | None
    ) -> None:
        was = LetterProperties(
            "booking.book.v1", "application/json", "c-1", reply_to, {"traceparent": "00-1"}
        )
        letter_id = await self._put_aside(setup, b'{"cpr": "%s"}' % BEN.encode(), was)
        await setup.reconcile()
        await replay(setup.operations, ids=(letter_id,))
        async with Rabbit(setup.settings, name="replay") as rabbit:
            replayer = await self._replayer(setup, rabbit)
            await poll(lambda: self._ended(setup, replayer), what="the replay's end")
        _, got, body = await asyncio.to_thread(foreign.get, setup.url, "jobnet.bookings")
        assert body == b'{"cpr": "%s"}' % BEN.encode()
        assert (got.type, got.correlation_id, got.reply_to) == ("booking.book.v1", "c-1", kept)
        assert got.headers["traceparent"] == "00-1"
        await setup.reconcile()
        assert await setup.depths() == {}

    @staticmethod
    async def _ended(setup: DeadLetterSetup, replayer: Replayer) -> bool:
        await replayer.advance()
        [progress] = await setup.operations.replays.progress(limit=1)
        return progress.state in ("done", "stopped")

    async def test_a_message_that_comes_back_is_the_same_letter_and_stops_its_replay(
        self, setup: DeadLetterSetup
    ) -> None:
        was = LetterProperties("booking.book.v1", None, None, "jobnet.answers.x")
        letter_id = await self._put_aside(setup, b"{}", was)
        other = await self._put_aside(setup, b"[]", was)
        await setup.reconcile()
        await replay(setup.operations, cause="invalid")
        async with Rabbit(setup.settings, name="replay") as rabbit:
            replayer = await self._replayer(setup, rabbit, canary_wait=60)
            assert await replayer.advance() == 1
            _, _, body = await asyncio.to_thread(foreign.get, setup.url, "jobnet.bookings")
            await self._put_aside(setup, body, was)  # what the broker does with it again
            await setup.reconcile()
            await replayer.advance()
        [progress] = await setup.operations.replays.progress()
        assert (progress.state, progress.waiting) == ("stopped", 1)
        letters = {
            letter.letter_id: letter.attempts for letter in await setup.operations.letters.listed(Filter())
        }
        assert set(letters) == {letter_id, other}
        assert sorted(letters.values()) == [1, 2]
        assert await setup.is_true()

    @pytest.mark.parametrize(("type_", "arrives"), [("query.offers.v1", True), ("query.unheard.v1", False)])
    async def test_an_unrouted_message_goes_to_the_queue_of_its_type_if_there_is_one(
        self, setup: DeadLetterSetup, type_: str, arrives: bool
    ) -> None:
        message = (b"{}", pika.BasicProperties(type=type_))
        await asyncio.to_thread(
            foreign.publish, setup.url, "query.offer", message, exchange="jobnet.requests"
        )
        await setup.reconcile()
        replay_id = await replay(setup.operations, queue=UNROUTED)
        async with Rabbit(setup.settings, name="replay") as rabbit:
            await (await self._replayer(setup, rabbit)).advance()
        [item] = await setup.operations.replays.items(replay_id)
        if arrives:
            _, got, body = await asyncio.to_thread(foreign.get, setup.url, "jobnet.queries")
            assert (item.state, body, got.type) == ("replayed", b"{}", type_)
        else:
            assert (item.state, item.note) == ("skipped", "no queue takes its routing key or its type")

    async def test_one_whose_properties_were_not_kept_is_skipped_in_words(
        self, setup: DeadLetterSetup
    ) -> None:
        letter_id = uuid4()
        sealed = setup.sealer.seal(b"{}", of=str(letter_id), field="body")
        headers = {LETTER_ID: str(letter_id), REASON: "invalid"}
        await setup.put(BOOKINGS, sealed, type=LETTER_TYPE, headers=headers)
        await setup.reconcile()
        replay_id = await replay(setup.operations, ids=(letter_id,))
        async with Rabbit(setup.settings, name="replay") as rabbit:
            await (await self._replayer(setup, rabbit)).advance()
        [item] = await setup.operations.replays.items(replay_id)
        assert (item.state, item.note) == ("skipped", "its body or its properties were not kept")
        assert await setup.depths() == {BOOKINGS: 1}

    async def test_a_crash_before_the_publish_was_noted_publishes_again_later(
        self, setup: DeadLetterSetup
    ) -> None:
        was = LetterProperties("booking.book.v1", None, None, "jobnet.answers.x")
        letter_id = await self._put_aside(setup, b"{}", was)
        await setup.reconcile()
        await replay(setup.operations, ids=(letter_id,))
        await setup.operations.replays.step(lambda _: None, canary_wait=300)  # and dies before it publishes
        assert len(await setup.operations.letters.listed(Filter())) == 1
        await setup.sql.execute("UPDATE replay_items SET replayed_at = replayed_at - interval '2 min'")
        await setup.sql.execute("UPDATE replays SET canary_at = canary_at - interval '2 min'")
        async with Rabbit(setup.settings, name="replay") as rabbit:
            assert await (await self._replayer(setup, rabbit)).advance() == 1
        assert (await asyncio.to_thread(foreign.get, setup.url, "jobnet.bookings"))[2] == b"{}"


async def test_ten_thousand_letters_are_rotated_in_bounded_memory(setup: DeadLetterSetup) -> None:
    """Then a group of them is replayed until the same failure returns."""
    for _ in range(10):
        await dead_reports(setup.sql, 1000)
    await setup.reconcile()
    assert await setup.depths() == {LANE: 10_000}
    [first, *_] = await setup.operations.letters.listed(Filter(), limit=1)
    await setup.operations.letters.discard(Filter(ids=(first.letter_id,)), BO)
    most = await _most_in_hand(setup)
    assert most <= setup.settings.dead.pass_batch
    assert await setup.depths() == {LANE: 9_999}
    [group] = await setup.operations.letters.groups(Filter())
    replay_id = await replay(setup.operations, fingerprint=group.fingerprint)
    await setup.operations.replays.step(lambda _: None, canary_wait=60)
    [canary] = [
        i for i in await setup.operations.replays.items(replay_id, limit=20_000) if i.state == "replayed"
    ]
    await dead_again(setup.sql, canary.letter_id)
    await setup.operations.replays.step(lambda _: None, canary_wait=60)
    [progress] = await setup.operations.replays.progress(replay_id)
    assert (progress.state, progress.total, progress.waiting) == ("stopped", 9_999, 9_998)


async def _most_in_hand(setup: DeadLetterSetup) -> int:
    """Runs a rotation; returns how many messages were read and not yet acknowledged at most."""
    in_hand, most = 0, 0
    take, throw = QueueReader.get, QueueReader.ack

    async def taking(self: QueueReader, queue: str) -> FetchedMessage | None:
        nonlocal in_hand, most
        drawn = await take(self, queue)
        in_hand += drawn is not None
        most = max(most, in_hand)
        return drawn

    async def throwing(self: QueueReader, drawn: FetchedMessage) -> None:
        nonlocal in_hand
        in_hand -= 1
        await throw(self, drawn)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QueueReader, "get", taking)
        patch.setattr(QueueReader, "ack", throwing)
        await setup.reconcile()
    return most
