"""What lies in the dead-letter queues as far as the ledger knows, compared with what should lie there.

A place is one letter of ours in one queue. The pass (handlers/dead_letters.py) writes places down as it turns a
queue round, so that its memory is here and not in the process, and a crash in the middle costs a second turn only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from broker.errors import LedgerAway
from broker.ledger.postgres.advisory_locks import RECONCILE_DEAD_QUEUES
from broker.ledger.postgres.connections import Connection, Pool, Server, is_foreign
from broker.sealing import Token

STANDINGS = """
SELECT queue, coalesce(lain.open, 0) AS open, coalesce(lain.placed, 0) AS placed,
    coalesce(lain.missing, 0) AS missing, coalesce(lain.gone, 0) AS gone, coalesce(turning, false) AS turning,
    coalesce(extract(epoch FROM ledger_now() - turned_at), 1e9)::float8 AS turned_ago
FROM (
    SELECT queue, count(l.letter_id) AS open, count(p.letter_id) AS placed,
        count(*) FILTER (WHERE p.letter_id IS NULL) AS missing,
        count(*) FILTER (WHERE l.letter_id IS NULL) AS gone
    FROM letters AS l FULL JOIN dead_places AS p USING (queue, letter_id) GROUP BY queue
) AS lain FULL JOIN dead_queues USING (queue) ORDER BY queue
"""

BEGIN = """
INSERT INTO dead_queues (queue, pass, turning) VALUES ($1, 1, true)
ON CONFLICT (queue) DO UPDATE SET pass = dead_queues.pass + 1, turning = true RETURNING pass
"""

# Kept: still open, and not seen in this turn yet. Everything else is to be thrown away.
KEEP = """
INSERT INTO dead_places (queue, letter_id, pass)
SELECT queue, letter_id, $2 FROM letters WHERE queue = $1 AND letter_id = ANY($3::uuid[]) ORDER BY letter_id
ON CONFLICT (queue, letter_id) DO UPDATE SET pass = excluded.pass WHERE dead_places.pass <> excluded.pass
RETURNING letter_id
"""
DETAILS = "SELECT letter_id, kind, cause FROM letters WHERE queue = $1 AND letter_id = ANY($2::uuid[])"

END = """
WITH vanished AS (DELETE FROM dead_places WHERE queue = $1 AND pass <> $2)
UPDATE dead_queues SET turning = false, turned_at = ledger_now() WHERE queue = $1 AND pass = $2
"""

MISSING = """
SELECT letter_id, kind, cause FROM letters AS l WHERE queue = $1
    AND NOT EXISTS (SELECT FROM dead_places AS p WHERE p.queue = $1 AND p.letter_id = l.letter_id)
LIMIT $2
"""
PLACE = """
INSERT INTO dead_places (queue, letter_id, pass)
SELECT $1, id, coalesce((SELECT pass FROM dead_queues WHERE queue = $1), 0) FROM unnest($2::uuid[]) AS id ORDER BY id
ON CONFLICT DO NOTHING
"""

# Known already (a crash between commit and ack), or a replay that came back: then it is the same letter again.
KNOWN = "SELECT letter_id FROM dead_messages WHERE source_id = $1"
COME_BACK = """
UPDATE dead_messages SET state = 'open', source_id = $1, attempts = attempts + 1, cause = $5, cause_class = $6,
    last_seen_at = ledger_now(), changed_at = ledger_now()
WHERE letter_id = (
    SELECT letter_id FROM dead_messages
    WHERE same_token = $2 AND same_key = $3 AND queue = $4 AND state IN ('replaying', 'replayed')
    ORDER BY changed_at DESC LIMIT 1)
RETURNING letter_id
"""
ADD = """
INSERT INTO dead_messages (letter_id, source_id, queue, cause, cause_class, type, fields, request_id,
    jobcenter_code, citizen_token, citizen_key, body, properties, same_key, same_token)
VALUES ($1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (letter_id) DO UPDATE SET changed_at = dead_messages.changed_at
RETURNING letter_id
"""


@dataclass(frozen=True, slots=True)
class QueueBalance:
    """One dead-letter queue in the ledger: open letters, places, and how they differ; `turned_ago` in seconds."""

    queue: str
    open: int
    placed: int
    missing: int
    gone: int
    turning: bool
    turned_ago: float


@dataclass(frozen=True, slots=True)
class KnownLetter:
    """A letter of ours that is to lie in a queue."""

    letter_id: UUID
    kind: str
    cause: str


@dataclass(frozen=True, slots=True)
class ForeignMessage:
    """A message that only RabbitMQ knew, sealed already. `source_id` is the same whenever it is read again."""

    source_id: UUID
    queue: str
    cause: str
    cause_class: str
    type: str | None
    fields: str | None
    request_id: UUID | None
    jobcenter_code: str | None
    citizen: Token | None
    body: bytes = field(repr=False)
    properties: bytes | None = field(repr=False)
    same: Token


class Places:
    """The ledger's side of the pass. Everything may be repeated. Raises LedgerAway, RowRefused."""

    def __init__(self, lines: Pool, target: Server) -> None:
        self._lines = lines
        self._target = target

    @asynccontextmanager
    async def only_one(self) -> AsyncIterator[bool]:
        """True for one process at a time, as long as its connection lives; the pass is safe without, only slow."""
        async with AsyncExitStack() as stack:
            try:
                connection = await self._target.connect()
                stack.callback(connection.terminate)
                mine = bool(
                    await connection.fetchval("SELECT pg_try_advisory_lock($1)", RECONCILE_DEAD_QUEUES)
                )
            except Exception as error:
                if is_foreign(error):
                    raise LedgerAway(f"PostgreSQL cannot be reached ({type(error).__name__})") from error
                raise
            yield mine

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(statement, *values)

        return await self._lines.run(work)

    async def standings(self) -> dict[str, QueueBalance]:
        """Every queue that has letters or places or was ever turned."""
        return {row["queue"]: QueueBalance(**row) for row in await self._fetch(STANDINGS)}

    async def begin(self, queue: str) -> int:
        """A turn of this queue begins; its number. Until `end` the next pass must turn it again."""
        return int((await self._fetch(BEGIN, queue))[0]["pass"])

    async def keep(self, queue: str, turn: int, ids: Sequence[UUID]) -> list[KnownLetter]:
        """Those of `ids` that belong in the queue and were not seen in this turn, marked as seen."""

        async def work(connection: Connection) -> list[KnownLetter]:
            async with connection.transaction():
                kept = [row["letter_id"] for row in await connection.fetch(KEEP, queue, turn, list(ids))]
                rows = await connection.fetch(DETAILS, queue, kept) if kept else []
            return [KnownLetter(**row) for row in rows]

        return await self._lines.run(work)

    async def end(self, queue: str, turn: int) -> None:
        """The turn is complete: places that it did not see are forgotten, so their letters are missing."""
        await self._fetch(END, queue, turn)

    async def missing(self, queue: str, limit: int) -> list[KnownLetter]:
        """Open letters that have no place in the queue."""
        return [KnownLetter(**row) for row in await self._fetch(MISSING, queue, limit)]

    async def placed(self, queue: str, ids: Sequence[UUID]) -> None:
        """They were published."""
        await self._fetch(PLACE, queue, list(ids))

    async def take_in(self, strangers: Sequence[ForeignMessage]) -> list[UUID]:
        """Commit them; the letter that each is now. A letter whose replay came back keeps its id."""

        async def work(connection: Connection) -> list[UUID]:
            async with connection.transaction():
                return [await self._take_in(connection, stranger) for stranger in strangers]

        return await self._lines.run(work)

    @staticmethod
    async def _take_in(connection: Connection, it: ForeignMessage) -> UUID:
        if known := await connection.fetchval(KNOWN, it.source_id):
            return UUID(str(known))
        come_back = (it.source_id, it.same.digest, it.same.key_id, it.queue, it.cause, it.cause_class)
        if same := await connection.fetchval(COME_BACK, *come_back):
            return UUID(str(same))
        citizen = (it.citizen.digest, it.citizen.key_id) if it.citizen else (None, None)
        facts = (it.cause, it.cause_class, it.type, it.fields, it.request_id, it.jobcenter_code)
        sealed = (it.body, it.properties, it.same.key_id, it.same.digest)
        added = await connection.fetchval(ADD, it.source_id, it.queue, *facts, *citizen, *sealed)
        return UUID(str(added))
