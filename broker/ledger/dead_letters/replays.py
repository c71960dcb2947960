"""Replays: a fixed set of letters; one canary first, then the rest at a rate, stopped when the failure returns.

A replay and its items are rows, so any process can advance it and a crash loses nothing. A report becomes `waiting`
again here; a message is returned to the caller, who publishes it (broker/dead_letters/replayer.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from broker.ledger.audit_log import Actor, Refusal, write_down
from broker.ledger.dead_letters.letter_model import COLUMNS, Filter, Letter
from broker.ledger.dead_letters.replay_steps import ITEM, STOP, ReplayStep, ReplayStepResult, ToPublish
from broker.ledger.postgres.connections import Connection, Pool

SAMPLE = 5
MOST_ITEMS = 100_000
MAX_RATE = 10_000
"""Letters per second."""

NO_BOOKINGS = (
    "a dead booking is never carried out late, so it cannot be replayed: verify it (its result is looked up again)"
    " or discard it"
)

DELETE_OLD_PREVIEWS = (
    "DELETE FROM replays WHERE state = 'prepared' AND created_at < ledger_now() - interval '1 day'"
)
OPEN = "INSERT INTO replays (replay_id, name, state, actor, reason, rate) VALUES ($1, $2, 'prepared', $3, $4, $5)"

NEXT_ACTIVE = """
SELECT *, extract(epoch FROM ledger_now() - advanced_at)::float8 AS idle,
    extract(epoch FROM ledger_now() - canary_at)::float8 AS canary_age
FROM replays WHERE state IN ('canary', 'running') AND replay_id <> ALL($1::uuid[])
ORDER BY advanced_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""


PUBLISHED = """
UPDATE dead_messages SET state = 'replayed', changed_at = ledger_now() WHERE letter_id = $1 AND state = 'replaying'
"""
NOT_PUBLISHED = """
UPDATE dead_messages SET state = 'open', changed_at = ledger_now() WHERE letter_id = $1 AND state = 'replaying'
"""


PROGRESS = """
SELECT r.replay_id, r.name, r.state, r.actor, r.reason, r.rate, r.canary, r.stopped_because, r.created_at,
    r.ended_at, count(i.*) AS total, count(*) FILTER (WHERE i.state = 'replayed') AS replayed,
    count(*) FILTER (WHERE i.state = 'skipped') AS skipped,
    count(*) FILTER (WHERE i.state IN ('waiting', 'taken')) AS waiting
FROM replays AS r LEFT JOIN replay_items AS i USING (replay_id)
WHERE ($1::uuid IS NULL OR r.replay_id = $1) AND (r.state <> 'prepared' OR r.replay_id = $1)
GROUP BY r.replay_id ORDER BY r.created_at DESC LIMIT $2
"""
ITEMS = """
SELECT letter_id, kind, state, note, replayed_at FROM replay_items WHERE replay_id = $1 ORDER BY position LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class Preview:
    """A prepared replay: how many letters it would replay, and the oldest of them. Letters that die later are not in it."""

    replay_id: UUID
    name: str
    count: int
    bookings_left_out: int
    oldest: datetime | None
    sample: tuple[Letter, ...]


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """Progress of a replay. `stopped_because` is a sentence."""

    replay_id: UUID
    name: str
    state: str
    actor: str
    reason: str
    rate: float
    canary: UUID | None
    stopped_because: str | None
    created_at: datetime
    ended_at: datetime | None
    total: int
    replayed: int
    skipped: int
    waiting: int


@dataclass(frozen=True, slots=True)
class ReplayItem:
    """One letter of a replay: waiting, taken, replayed or skipped (`note` says why)."""

    letter_id: UUID
    kind: str
    state: str
    note: str | None
    replayed_at: datetime | None


class Replays:
    """Prepare, start, stop, resume, show and advance replays. Raises LedgerAway, Refusal."""

    def __init__(self, pool: Pool, default_rate: float) -> None:
        self._pool = pool
        self._default_rate = default_rate

    async def prepare(self, wanted: Filter, by: Actor, *, rate: float | None = None) -> Preview:
        """Fix the set of letters and show it; nothing is replayed before `start`. `rate` in letters per second."""
        wanted.refuse_empty("replay")
        rate = self._default_rate if rate is None else rate
        if not 0 < rate <= MAX_RATE:
            raise Refusal(f"a rate is more than 0 and at most {MAX_RATE} letters a second")
        return await self._pool.run(lambda connection: self._prepare(connection, wanted, by, rate))

    async def _prepare(self, connection: Connection, wanted: Filter, by: Actor, rate: float) -> Preview:
        replay_id = uuid4()
        where, values = wanted.where(2)
        fill = f"""
            INSERT INTO replay_items (replay_id, letter_id, position, kind, fingerprint)
            SELECT $1, letter_id, row_number() OVER (ORDER BY first_seen_at, letter_id), kind, fingerprint
            FROM letters WHERE kind <> 'booking' AND {where}
            ORDER BY first_seen_at, letter_id LIMIT {MOST_ITEMS}
        """
        where_only, values_only = wanted.where(1)
        bookings = f"SELECT count(*) FROM letters WHERE kind = 'booking' AND {where_only}"
        sample_of = f"""
            SELECT {", ".join("l." + name.strip() for name in COLUMNS.split(","))} FROM replay_items AS i
            JOIN letters AS l USING (letter_id) WHERE i.replay_id = $1 ORDER BY i.position LIMIT {SAMPLE}
        """
        async with connection.transaction():
            await connection.execute(DELETE_OLD_PREVIEWS)
            await connection.execute(OPEN, replay_id, wanted.in_words(), by.name, by.reason, rate)
            count = int((await connection.execute(fill, replay_id, *values)).split()[-1])
            left_out = await connection.fetchval(bookings, *values_only)
            if not count:
                raise Refusal(NO_BOOKINGS if left_out else "nothing to replay: no dead letter matches")
            if left_out and wanted.ids is not None:
                raise Refusal(NO_BOOKINGS)
            sample = tuple(Letter(**row) for row in await connection.fetch(sample_of, replay_id))
        oldest = sample[0].first_seen_at if sample else None
        return Preview(replay_id, wanted.in_words(), count, left_out, oldest, sample)

    async def start(self, replay_id: UUID, by: Actor) -> None:
        """Start with the canary; from here on the scheduler of any process advances the replay."""
        await self._change(replay_id, by, "dead.replay", "prepared", "canary")

    async def resume(self, replay_id: UUID, by: Actor) -> None:
        """Continue a stopped replay, with another canary."""
        await self._change(replay_id, by, "dead.replay.resume", "stopped", "canary")

    async def stop(self, replay_id: UUID, by: Actor) -> None:
        """Stop an active replay; letters that it has not replayed yet stay dead."""

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                if await connection.execute(STOP, replay_id, f"stopped by {by.name}") != "UPDATE 1":
                    raise Refusal(f"replay {replay_id} is not active")
                await write_down(connection, by, "dead.replay.stop", str(replay_id))

        await self._pool.run(work)

    async def _change(self, replay_id: UUID, by: Actor, action: str, before: str, after: str) -> None:
        statement = """
            UPDATE replays SET state = $3, canary = NULL, canary_at = NULL, stopped_because = NULL,
                ended_at = NULL, advanced_at = ledger_now()
            WHERE replay_id = $1 AND state = $2 RETURNING name
        """

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                name = await connection.fetchval(statement, replay_id, before, after)
                if name is None:
                    raise Refusal(f"replay {replay_id} is not {before}")
                total = await connection.fetchval(
                    "SELECT count(*) FROM replay_items WHERE replay_id = $1", replay_id
                )
                await write_down(connection, by, action, str(replay_id), {"name": name, "count": total})

        await self._pool.run(work)

    async def progress(self, replay_id: UUID | None = None, *, limit: int = 50) -> list[ReplayProgress]:
        """One replay, or the newest ones that were started."""
        rows = await self._pool.run(lambda connection: connection.fetch(PROGRESS, replay_id, limit))
        return [ReplayProgress(**row) for row in rows]

    async def one(self, replay_id: UUID) -> tuple[ReplayProgress, list[ReplayItem]]:
        """One replay and its letters (at most 1000)."""
        found = await self.progress(replay_id)
        if not found:
            raise Refusal(f"no replay {replay_id} is known")
        return found[0], await self.items(replay_id)

    async def items(self, replay_id: UUID, *, limit: int = 1000) -> list[ReplayItem]:
        """The letters of a replay and the result of each."""
        rows = await self._pool.run(lambda connection: connection.fetch(ITEMS, replay_id, limit))
        return [ReplayItem(**row) for row in rows]

    async def step(
        self,
        supplier_of: Callable[[str], str | None],
        *,
        canary_wait: float,
        excluding: frozenset[UUID] = frozenset(),
    ) -> ReplayStepResult | None:
        """Advance the active replay whose last step is oldest, in one commit; None if there is none.

        `supplier_of`: the supplier of a jobcenter, for reports that had none. `canary_wait`: seconds after which a
        canary without a result stops its replay.
        """

        async def work(connection: Connection) -> ReplayStepResult | None:
            async with connection.transaction():
                replay = await connection.fetchrow(NEXT_ACTIVE, list(excluding))
                return (
                    await ReplayStep(connection, replay, supplier_of, canary_wait).run() if replay else None
                )

        return await self._pool.run(work)

    async def record_published(self, message: ToPublish, problem: str | None = None) -> None:
        """Record that a message is on its work queue again, confirmed; or why it could not be published."""

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute(NOT_PUBLISHED if problem else PUBLISHED, message.letter_id)
                state = "skipped" if problem else "replayed"
                await connection.execute(ITEM, message.replay_id, message.letter_id, state, problem)

        await self._pool.run(work)
