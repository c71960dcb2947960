"""Uncertain bookings until their end: claimed for verification, then settled, postponed or given up.

docs/architecture.md#unknown. A verification is a claim like any other (owner, epoch); the row stays `uncertain`, and
the citizen's turn stays held. The sweep frees what dead owners left. The look-up and its judgement are in
broker/requests/verifier.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from broker.ledger.model import Claim, StoredAnswer
from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.postgres.heartbeat import deaths, orphaned
from broker.ledger.postgres.sealed import CLAIM, FieldSealer, SealedRow, claim_of
from broker.ledger.requests.held_claims import HeldClaims
from broker.ledger.requests.settles import Settles
from broker.sealing import SealBroken
from broker.telemetry.log import get_logger

log = get_logger("ledger.verifications")

SWEEP_MOST = 100
"""Rows that one sweep settles in one transaction; the next sweep takes the next ones."""
GRACE = timedelta(seconds=5)
"""How long after its deadline the redelivered message of a booking may still take it over."""

# $2 was locked in the same transaction.
TAKE = f"""
UPDATE requests SET owner = $1, epoch = epoch + 1, claim_token = NULL
WHERE request_id = ANY($2::uuid[]) RETURNING {CLAIM}, message
"""

# At most $2 of each booking system, so that a slow system with many rows does not hold the others up.
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

ORPHANED = orphaned("requests.owner", "request_id")

NAMED = f"""
SELECT request_id FROM requests WHERE request_id = $4 AND state = 'uncertain' AND {ORPHANED}
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

FREE_VERIFYING = f"""
UPDATE requests SET
    owner = NULL, epoch = epoch + 1, verify_due_at = clock_timestamp(),
    dead_owners = dead_owners + {deaths("requests.owner")}
WHERE state = 'uncertain' AND owner IS NOT NULL AND {ORPHANED}
"""

TAKE_EXPIRED = f"""
UPDATE requests SET owner = $1, epoch = epoch + 1, claim_token = NULL,
    dead_owners = dead_owners + {deaths("requests.owner")}
WHERE request_id IN (
    SELECT request_id FROM requests
    WHERE state = 'running' AND deadline_at < clock_timestamp() - $4::interval AND {ORPHANED}
    ORDER BY deadline_at LIMIT $5 FOR UPDATE SKIP LOCKED)
RETURNING {CLAIM}, message
"""


class Verifications:
    """`ledger.verifications`: few calls, not batched, each one transaction. All raise LedgerAway."""

    def __init__(
        self,
        owner: UUID,
        threshold: timedelta,
        pool: Pool,
        sealer: FieldSealer,
        held: HeldClaims,
        settles: Settles,
    ) -> None:
        self._owner = owner
        self._threshold = threshold
        self._pool = pool
        self._sealer = sealer
        self._held = held
        self._settles = settles
        # Between its commit and `hold` a claim looks orphaned to a sweep of this process: only one of them at a time.
        self._exclusive = asyncio.Lock()

    async def due(self, limit: int) -> list[Claim]:
        """Claims on uncertain bookings whose look-up is due, with `message` opened (None: its seal is broken)."""

        async def work(connection: Connection) -> list[Claim]:
            async with connection.transaction():
                return await self._take(connection, await connection.fetch(DUE, limit, -(-limit // 4)))

        async with self._exclusive:
            return await self._pool.run(work)

    async def claim(self, request_id: UUID) -> Claim | None:
        """The claim on one uncertain booking, due or not (R9).

        None if a living process verifies it, or it is not uncertain.
        """

        async def work(connection: Connection) -> list[Claim]:
            async with connection.transaction():
                held = self._held.ids()
                found = await connection.fetch(NAMED, self._owner, self._threshold, held, request_id)
                return await self._take(connection, found)

        async with self._exclusive:
            claims = await self._pool.run(work)
        return claims[0] if claims else None

    async def _take(self, connection: Connection, found: Sequence[SealedRow]) -> list[Claim]:
        if not found:
            return []
        rows = await connection.fetch(TAKE, self._owner, [row["request_id"] for row in found])
        return [self._held.hold(self._opened(row)) for row in rows]

    def _opened(self, row: SealedRow) -> Claim:
        """The claim; without a message when that cannot be decrypted: it can still be given up or answered."""
        try:
            message = self._sealer.open(row["request_id"], "message", row["message"])
        except SealBroken as broken:
            log.error("message-cannot-be-decrypted", request_id=row["request_id"], reason=str(broken))
            message = None
        return claim_of(row, taken_over=True, message=message)

    async def postpone(self, claim: Claim, seconds: float) -> bool:
        """The look-up found nothing out: due again in `seconds`. False if the claim was overtaken."""
        return await self._change(POSTPONE, claim, timedelta(seconds=seconds))

    async def give_up(self, claim: Claim) -> bool:
        """Make it `unverified`: the turn is free, an event is due, the answer stays. False if the claim was overtaken."""
        return await self._change(GIVE_UP, claim)

    async def _change(self, statement: str, claim: Claim, *more: timedelta) -> bool:
        tag = await self._pool.run(
            lambda connection: connection.execute(
                statement, claim.request_id, claim.owner, claim.epoch, *more
            )
        )
        return tag == "UPDATE 1"

    async def sweep(self, answer_for: Callable[[Claim], StoredAnswer]) -> int:
        """Free what dead owners left: verifications fall due, bookings past their deadline become uncertain.

        `answer_for` makes the uncertain ending of such a booking. Returns how many were freed; settles at most 100.
        """
        async with self._exclusive:
            return await self._pool.run(lambda connection: self._sweep(connection, answer_for))

    async def _sweep(self, connection: Connection, answer_for: Callable[[Claim], StoredAnswer]) -> int:
        orphan_values = (self._owner, self._threshold, self._held.ids())
        freed = await connection.execute(FREE_VERIFYING, *orphan_values)
        async with connection.transaction():
            rows = await connection.fetch(TAKE_EXPIRED, *orphan_values, GRACE, SWEEP_MOST)
            claims = [self._opened(row) for row in rows]
            entries = [self._settles.entry(claim, _sent(claim, answer_for(claim))) for claim in claims]
            if entries:
                await self._settles.commit(connection, entries)
        return int(freed.split()[-1]) + len(entries)


def _sent(claim: Claim, ending: StoredAnswer) -> StoredAnswer:
    """With the last moment at which the dead owner may have sent: its deadline, unless a later one is known."""
    return replace(ending, last_sent_at=ending.last_sent_at or claim.last_sent_at or claim.deadline_at)
