"""Places: which letters lie in which dead-letter queue according to the ledger, compared with the open letters.

A place is one letter in one queue. Reconciliation (broker/dead_letters/reconcile.py) records places while it rotates
a queue, so its progress is stored here and a crash in the middle costs one more rotation.
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

BALANCES = """
SELECT queue, coalesce(known.open, 0) AS open, coalesce(known.placed, 0) AS placed,
    coalesce(known.missing, 0) AS missing, coalesce(known.gone, 0) AS gone, coalesce(turning, false) AS rotating,
    coalesce(extract(epoch FROM ledger_now() - turned_at), 1e9)::float8 AS rotated_ago
FROM (
    SELECT queue, count(l.letter_id) AS open, count(p.letter_id) AS placed,
        count(*) FILTER (WHERE p.letter_id IS NULL) AS missing,
        count(*) FILTER (WHERE l.letter_id IS NULL) AS gone
    FROM letters AS l FULL JOIN dead_places AS p USING (queue, letter_id) GROUP BY queue
) AS known FULL JOIN dead_queues USING (queue) ORDER BY queue
"""

BEGIN_ROTATION = """
INSERT INTO dead_queues (queue, pass, turning) VALUES ($1, 1, true)
ON CONFLICT (queue) DO UPDATE SET pass = dead_queues.pass + 1, turning = true RETURNING pass
"""

# Kept: letters that are open and not seen in this rotation yet. Every other message is dropped.
KEEP = """
INSERT INTO dead_places (queue, letter_id, pass)
SELECT queue, letter_id, $2 FROM letters WHERE queue = $1 AND letter_id = ANY($3::uuid[]) ORDER BY letter_id
ON CONFLICT (queue, letter_id) DO UPDATE SET pass = excluded.pass WHERE dead_places.pass <> excluded.pass
RETURNING letter_id
"""
DETAILS = "SELECT letter_id, kind, cause FROM letters WHERE queue = $1 AND letter_id = ANY($2::uuid[])"

END_ROTATION = """
WITH vanished AS (DELETE FROM dead_places WHERE queue = $1 AND pass <> $2)
UPDATE dead_queues SET turning = false, turned_at = ledger_now() WHERE queue = $1 AND pass = $2
"""

MISSING = """
SELECT letter_id, kind, cause FROM letters AS l WHERE queue = $1
    AND NOT EXISTS (SELECT FROM dead_places AS p WHERE p.queue = $1 AND p.letter_id = l.letter_id)
LIMIT $2
"""
ADD_PLACES = """
INSERT INTO dead_places (queue, letter_id, pass)
SELECT $1, id, coalesce((SELECT pass FROM dead_queues WHERE queue = $1), 0) FROM unnest($2::uuid[]) AS id ORDER BY id
ON CONFLICT DO NOTHING
"""

# The message is known already if a process died between commit and ack.
KNOWN = "SELECT letter_id FROM dead_messages WHERE source_id = $1"
# A replayed message that failed again is the same letter, open again.
REOPEN = """
UPDATE dead_messages SET state = 'open', source_id = $1, attempts = attempts + 1, cause = $5, cause_class = $6,
    last_seen_at = ledger_now(), changed_at = ledger_now()
WHERE letter_id = (
    SELECT letter_id FROM dead_messages
    WHERE same_token = $2 AND same_key = $3 AND queue = $4 AND state IN ('replaying', 'replayed')
    ORDER BY changed_at DESC LIMIT 1)
RETURNING letter_id
"""
ADD_MESSAGE = """
INSERT INTO dead_messages (letter_id, source_id, queue, cause, cause_class, type, fields, request_id,
    jobcenter_code, citizen_token, citizen_key, body, properties, same_key, same_token)
VALUES ($1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (letter_id) DO UPDATE SET changed_at = dead_messages.changed_at
RETURNING letter_id
"""


@dataclass(frozen=True, slots=True)
class QueueBalance:
    """One dead-letter queue in the ledger: how many open letters and places it has, and how they differ.

    `missing`: open letters without a place; `gone`: places without an open letter; `rotating`: a rotation began and
    did not end; `rotated_ago`: seconds since the last complete rotation.
    """

    queue: str
    open: int = 0
    placed: int = 0
    missing: int = 0
    gone: int = 0
    rotating: bool = False
    rotated_ago: float = float("inf")


@dataclass(frozen=True, slots=True)
class KnownLetter:
    """A letter that belongs in a dead-letter queue."""

    letter_id: UUID
    kind: str
    cause: str


@dataclass(frozen=True, slots=True)
class ForeignMessage:
    """A message that the ledger did not know, sealed. `source_id` is the same whenever the message is read again.

    `same`: token of its queue and body, by which a replayed message that comes back is recognised.
    """

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
    """The ledger's side of reconciliation. Every call may be repeated. Raises LedgerAway, RowRefused."""

    def __init__(self, pool: Pool, server: Server) -> None:
        self._pool = pool
        self._server = server

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[bool]:
        """True for one process at a time, until its connection ends."""
        # Two processes at once would lose nothing; they would only do the same work twice.
        async with AsyncExitStack() as stack:
            try:
                connection = await self._server.connect()
                stack.callback(connection.terminate)
                locked = await connection.fetchval("SELECT pg_try_advisory_lock($1)", RECONCILE_DEAD_QUEUES)
            except Exception as error:
                if is_foreign(error):
                    raise LedgerAway(f"PostgreSQL cannot be reached ({type(error).__name__})") from error
                raise
            yield bool(locked)

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        return await self._pool.run(lambda connection: connection.fetch(statement, *values))

    async def balances(self) -> dict[str, QueueBalance]:
        """Every queue that has letters or places, or was rotated before."""
        return {row["queue"]: QueueBalance(**row) for row in await self._fetch(BALANCES)}

    async def begin_rotation(self, queue: str) -> int:
        """Start a rotation and return its number. Until `end_rotation` the queue must be rotated again."""
        return int((await self._fetch(BEGIN_ROTATION, queue))[0]["pass"])

    async def keep(self, queue: str, rotation: int, ids: Sequence[UUID]) -> list[KnownLetter]:
        """Those of `ids` that belong in the queue and were not seen in this rotation; they are marked as seen."""

        async def work(connection: Connection) -> list[KnownLetter]:
            async with connection.transaction():
                kept = [row["letter_id"] for row in await connection.fetch(KEEP, queue, rotation, list(ids))]
                rows = await connection.fetch(DETAILS, queue, kept) if kept else []
            return [KnownLetter(**row) for row in rows]

        return await self._pool.run(work)

    async def end_rotation(self, queue: str, rotation: int) -> None:
        """Complete a rotation: places that it did not see are deleted, so that their letters count as missing."""
        await self._fetch(END_ROTATION, queue, rotation)

    async def missing(self, queue: str, limit: int) -> list[KnownLetter]:
        """Open letters that have no place in the queue."""
        return [KnownLetter(**row) for row in await self._fetch(MISSING, queue, limit)]

    async def record_placed(self, queue: str, ids: Sequence[UUID]) -> None:
        """Record that these letters were published into the queue."""
        await self._fetch(ADD_PLACES, queue, list(ids))

    async def import_messages(self, messages: Sequence[ForeignMessage]) -> list[UUID]:
        """Commit foreign messages; returns their letter ids. A replayed message that comes back keeps its id."""

        async def work(connection: Connection) -> list[UUID]:
            async with connection.transaction():
                return [await _import(connection, message) for message in messages]

        return await self._pool.run(work)


async def _import(connection: Connection, message: ForeignMessage) -> UUID:
    if known := await connection.fetchval(KNOWN, message.source_id):
        return UUID(str(known))
    same = (message.same.digest, message.same.key_id)
    cause = (message.cause, message.cause_class)
    if reopened := await connection.fetchval(REOPEN, message.source_id, *same, message.queue, *cause):
        return UUID(str(reopened))
    facts = (message.type, message.fields, message.request_id, message.jobcenter_code)
    citizen = (message.citizen.digest, message.citizen.key_id) if message.citizen else (None, None)
    sealed = (message.body, message.properties, message.same.key_id, message.same.digest)
    values = (message.source_id, message.queue, *cause, *facts, *citizen, *sealed)
    return UUID(str(await connection.fetchval(ADD_MESSAGE, *values)))
