"""Uncertain bookings on their way to an end: claimed, looked up elsewhere, settled, postponed or given up.

A verification is a claim like any other (owner, epoch), while the row stays `uncertain` and the citizen's
turn stays held. The sweep frees what dead owners left. Looking up and judging is not done here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from broker.ledger.model import Claim, StoredAnswer
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.postgres.heartbeat import deaths, owner_is_dead
from broker.ledger.postgres.sealed import CLAIM, FieldSealer, SealedRow, claim_of
from broker.ledger.requests.held_claims import HeldClaims
from broker.ledger.requests.settles import Settles
from broker.sealing import SealBroken
from broker.telemetry.log import get_logger

log = get_logger("ledger.verifications")

SWEEP_MOST = 100
"""Rows that one sweep settles in one transaction; the next sweep takes the next ones."""
GRACE = timedelta(seconds=5)
"""After its deadline a booking may still be taken over by its own redelivered arrival, this long."""

TAKE = f"""
UPDATE requests SET owner = $1, epoch = epoch + 1, claim_token = NULL
WHERE request_id = ANY($2::uuid[]) RETURNING {CLAIM}, message
"""

# No system gets more than its part of the places, so that a slow one with many does not hold the others.
DUE = """
SELECT request_id FROM requests
WHERE request_id IN (
    SELECT request_id FROM (
        SELECT request_id, verify_due_at,
            row_number() OVER (PARTITION BY booking_system ORDER BY verify_due_at) AS place
        FROM requests WHERE state = 'uncertain' AND owner IS NULL AND verify_due_at <= clock_timestamp()
    ) AS due WHERE place <= $2 ORDER BY verify_due_at LIMIT $1)
AND state = 'uncertain' AND owner IS NULL AND verify_due_at <= clock_timestamp()
ORDER BY verify_due_at FOR UPDATE SKIP LOCKED
"""

ONE = f"""
SELECT request_id FROM requests
WHERE request_id = $3 AND state = 'uncertain' AND (
    owner IS NULL OR (owner = $1 AND request_id <> ALL($4::uuid[]))
    OR (owner <> $1 AND {owner_is_dead("requests.owner")}))
FOR UPDATE SKIP LOCKED
"""

POSTPONE = """
UPDATE requests SET
    owner = NULL, verify_due_at = clock_timestamp() + $4::interval, verify_tries = verify_tries + 1
WHERE request_id = $1 AND owner = $2 AND epoch = $3 AND state = 'uncertain'
"""

GIVE_UP = """
UPDATE requests SET state = 'unverified', turn = NULL, verify_due_at = NULL, settled_at = clock_timestamp(),
    event_due_at = clock_timestamp()
WHERE request_id = $1 AND owner = $2 AND epoch = $3 AND state = 'uncertain'
"""

RELEASE = """
UPDATE requests SET owner = NULL, epoch = epoch + 1, dead_owners = greatest(dead_owners - 1, 0)
WHERE request_id = $1 AND owner = $2 AND epoch = $3 AND state = 'running'
"""

# Nobody's: of no owner (released), of ours but not in our hands, or of a dead one.
LEFT = f"""(
    owner IS NULL OR (owner = $1 AND request_id <> ALL($3::uuid[]))
    OR (owner <> $1 AND {owner_is_dead("requests.owner")}))"""

FREE_VERIFYING = f"""
UPDATE requests SET
    owner = NULL, epoch = epoch + 1, verify_due_at = clock_timestamp(),
    dead_owners = dead_owners + {deaths("requests.owner")}
WHERE state = 'uncertain' AND owner IS NOT NULL AND {LEFT}
"""

TAKE_EXPIRED = f"""
UPDATE requests SET owner = $1, epoch = epoch + 1, claim_token = NULL,
    dead_owners = dead_owners + {deaths("requests.owner")}
WHERE request_id IN (
    SELECT request_id FROM requests
    WHERE state = 'running' AND deadline_at < clock_timestamp() - $4::interval AND {LEFT}
    ORDER BY deadline_at LIMIT $5 FOR UPDATE SKIP LOCKED)
RETURNING {CLAIM}, message
"""


class Verifications:
    """The calls that are not gathered: few, and each in one transaction. All raise LedgerAway."""

    def __init__(
        self,
        me: UUID,
        threshold: timedelta,
        lines: Pool,
        safe: FieldSealer,
        holdings: HeldClaims,
        settles: Settles,
    ) -> None:
        self._me = me
        self._threshold = threshold
        self._lines = lines
        self._safe = safe
        self._holdings = holdings
        self._settles = settles
        # A claim that was committed and is not yet held would look like an orphan to a sweep of our own.
        self._one_at_a_time = asyncio.Lock()

    async def due(self, limit: int) -> list[Claim]:
        async def work(connection: Connection) -> list[Claim]:
            async with connection.transaction():
                return await self._take(connection, await connection.fetch(DUE, limit, -(-limit // 4)))

        async with self._one_at_a_time:
            return await self._lines.run(work)

    async def release(self, claim: Claim) -> None:
        """Let a running claim go, as if it had not been taken over: somebody else is to carry it."""
        await self._lines.run(
            lambda connection: connection.execute(RELEASE, claim.request_id, claim.owner, claim.epoch)
        )

    async def claim(self, request_id: UUID) -> Claim | None:
        async def work(connection: Connection) -> list[Claim]:
            async with connection.transaction():
                held = self._holdings.in_hand()
                found = await connection.fetch(ONE, self._me, self._threshold, request_id, held)
                return await self._take(connection, found)

        async with self._one_at_a_time:
            claims = await self._lines.run(work)
        return claims[0] if claims else None

    async def _take(self, connection: Connection, found: Sequence[SealedRow]) -> list[Claim]:
        if not found:
            return []
        rows = await connection.fetch(TAKE, self._me, [row["request_id"] for row in found])
        return [self._holdings.hold(self._opened(row)) for row in rows]

    def _opened(self, row: SealedRow) -> Claim:
        """A message that does not open leaves a claim without one: still to be given up or answered."""
        try:
            message = self._safe.open(row["request_id"], "message", row["message"])
        except SealBroken as broken:
            log.error("message-does-not-open", request_id=row["request_id"], reason=str(broken))
            message = None
        return claim_of(row, taken_over=True, message=message)

    async def postpone(self, claim: Claim, seconds: float) -> bool:
        return await self._change(POSTPONE, claim, timedelta(seconds=seconds))

    async def give_up(self, claim: Claim) -> bool:
        return await self._change(GIVE_UP, claim)

    async def _change(self, statement: str, claim: Claim, *more: timedelta) -> bool:
        tag = await self._lines.run(
            lambda connection: connection.execute(
                statement, claim.request_id, claim.owner, claim.epoch, *more
            )
        )
        return tag == "UPDATE 1"

    async def sweep(self, answer_for: Callable[[Claim], StoredAnswer]) -> int:
        async with self._one_at_a_time:
            return await self._lines.run(lambda connection: self._sweep(connection, answer_for))

    async def _sweep(self, connection: Connection, answer_for: Callable[[Claim], StoredAnswer]) -> int:
        mine = (self._me, self._threshold, self._holdings.in_hand())
        freed = await connection.execute(FREE_VERIFYING, *mine)
        async with connection.transaction():
            rows = await connection.fetch(TAKE_EXPIRED, *mine, GRACE, SWEEP_MOST)
            claims = [self._opened(row) for row in rows]
            entries = [self._settles.entry(claim, _sent(claim, answer_for(claim))) for claim in claims]
            if entries:
                await self._settles.commit(connection, entries)
        return int(freed.split()[-1]) + len(entries)


def _sent(claim: Claim, ending: StoredAnswer) -> StoredAnswer:
    """Its owner may have sent until the deadline, and not later (DESIGN 5)."""
    return replace(ending, last_sent_at=ending.last_sent_at or claim.last_sent_at or claim.deadline_at)
