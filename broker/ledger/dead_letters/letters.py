"""Dead letters for operators: list, filter, group, show, discard, restore.

Letters are two views over dead reports, unverified bookings and foreign messages, so a letter appears in the same
commit that makes its report dead, and no copy can differ (docs/architecture.md#dead-letters). Replays are in
replays.py, the contents of RabbitMQ's queues in places.py.
"""

from __future__ import annotations

from uuid import UUID

from broker.ledger.audit_log import Actor, Refusal, write_down
from broker.ledger.dead_letters.letter_model import Filter, Group, Letter, LetterPage, PageCursor
from broker.ledger.dead_letters.lists import groups_of, page_of
from broker.ledger.postgres.connections import Connection, Pool

MOST_AT_ONCE = 10_000
"""Letters per discard or restore; more need several calls, each of them logged."""

DISCARD_REPORTS = """
UPDATE reports SET state = 'discarded', discarded_at = ledger_now(),
    event_due_at = ledger_now()
WHERE report_id = ANY($1::uuid[]) AND state = 'dead' RETURNING report_id
"""
# A report named by its id may be discarded before it is dead, but not while it is being delivered.
DISCARD_NAMED = """
UPDATE reports SET state = 'discarded', discarded_at = ledger_now(), event_due_at = ledger_now(),
    settled_at = coalesce(settled_at, ledger_now())
WHERE report_id = ANY($1::uuid[]) AND state IN ('waiting', 'handed', 'joining') RETURNING report_id
"""
DISCARD_BOOKINGS = """
INSERT INTO discarded_bookings (request_id)
SELECT request_id FROM requests WHERE request_id = ANY($1::uuid[]) AND state = 'unverified'
ON CONFLICT DO NOTHING RETURNING request_id
"""
DISCARD_MESSAGES = """
UPDATE dead_messages SET state = 'discarded', changed_at = ledger_now()
WHERE letter_id = ANY($1::uuid[]) AND state = 'open' RETURNING letter_id
"""
RESTORE_REPORTS = """
UPDATE reports SET state = 'dead', discarded_at = NULL, cause = coalesce(cause, 'undelivered'),
    cause_class = coalesce(cause_class, 'moment')
WHERE report_id = ANY($1::uuid[]) AND state = 'discarded' RETURNING report_id
"""
RESTORE_BOOKINGS = "DELETE FROM discarded_bookings WHERE request_id = ANY($1::uuid[]) RETURNING request_id"
RESTORE_MESSAGES = """
UPDATE dead_messages SET state = 'open', changed_at = ledger_now()
WHERE letter_id = ANY($1::uuid[]) AND state = 'discarded' RETURNING letter_id
"""
DISCARDS = {"report": DISCARD_REPORTS, "booking": DISCARD_BOOKINGS, "message": DISCARD_MESSAGES}
RESTORES = {"report": RESTORE_REPORTS, "booking": RESTORE_BOOKINGS, "message": RESTORE_MESSAGES}

WHY_NOT = """
SELECT 'report' AS kind, state FROM reports WHERE report_id = $1
UNION ALL SELECT 'message', state FROM dead_messages WHERE letter_id = $1
UNION ALL SELECT 'booking', state FROM requests WHERE request_id = $1
"""

# Due at once: the scheduler of any process takes it, and gives up again if the look-ups fail.
VERIFY = """
UPDATE requests SET state = 'uncertain', owner = NULL, epoch = epoch + 1, claim_token = NULL,
    verify_due_at = ledger_now(), uncertain_since = ledger_now(), settled_at = NULL,
    event_due_at = NULL, verify_tries = 0, dead_owners = 0
WHERE request_id = $1 AND state = 'unverified'
"""


class Letters:
    """Read dead letters, discard, restore and verify them. Raises LedgerAway, Refusal."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def listed(self, wanted: Filter, *, limit: int = 100, discarded: bool = False) -> list[Letter]:
        """The newest open letters that match, at most `limit` (and 1000); with `discarded`, discarded ones instead."""
        return list((await self.page(wanted, limit=limit, discarded=discarded)).letters)

    async def page(
        self, wanted: Filter, *, limit: int = 50, after: PageCursor | None = None, discarded: bool = False
    ) -> LetterPage:
        """One page of `listed`: the letters after the cursor `after`, newest first, at most `limit` (and 1000)."""
        return await self._pool.run(lambda c: page_of(c, wanted, limit, after, discarded))

    async def one(self, letter_id: UUID) -> Letter:
        """An open or discarded letter."""
        wanted = Filter(ids=(letter_id,))
        found = await self.listed(wanted, limit=1) or await self.listed(wanted, limit=1, discarded=True)
        if not found:
            raise Refusal(f"no dead letter {letter_id} is known")
        return found[0]

    async def groups(self, wanted: Filter, *, limit: int = 100) -> list[Group]:
        """The largest groups first, at most `limit` (and 1000)."""
        return await self._pool.run(lambda connection: groups_of(connection, wanted, limit))

    async def discard(self, wanted: Filter, by: Actor) -> int:
        """Discard letters, at most 10,000; they can be restored until retention. Returns how many."""
        wanted.refuse_empty("discard")
        return await self._pool.run(lambda c: self._move(c, "dead.discard", "letters", DISCARDS, wanted, by))

    async def restore(self, wanted: Filter, by: Actor) -> int:
        """Undo a discard. Returns how many letters were restored."""
        wanted.refuse_empty("restore")
        return await self._pool.run(
            lambda c: self._move(c, "dead.restore", "discarded_letters", RESTORES, wanted, by)
        )

    async def _move(
        self,
        connection: Connection,
        action: str,
        view: str,
        by_kind: dict[str, str],
        wanted: Filter,
        by: Actor,
    ) -> int:
        where, values = wanted.where(2)
        find = f"SELECT letter_id, kind FROM {view} WHERE {where} ORDER BY letter_id LIMIT $1"
        moved: list[UUID] = []
        async with connection.transaction():
            found = await connection.fetch(find, MOST_AT_ONCE, *values)
            for kind, statement in by_kind.items():
                ids = [row["letter_id"] for row in found if row["kind"] == kind]
                moved += [row[0] for row in await connection.fetch(statement, ids)] if ids else []
            if by_kind is DISCARDS and wanted.ids:
                moved += [row[0] for row in await connection.fetch(DISCARD_NAMED, list(wanted.ids))]
            if not moved:
                raise Refusal(await self._why_not(connection, action, wanted))
            subject = str(moved[0]) if len(moved) == 1 else wanted.in_words()
            await write_down(connection, by, action, subject, {"count": len(moved), "ids": moved[:100]})
        return len(moved)

    @staticmethod
    async def _why_not(connection: Connection, action: str, wanted: Filter) -> str:
        """Why no letter was changed, as a sentence for the operator."""
        what = "nothing to discard" if action == "dead.discard" else "nothing to restore"
        if wanted.ids is None or len(wanted.ids) != 1:
            return f"{what}: no letter matches"
        rows = await connection.fetch(WHY_NOT, wanted.ids[0])
        if not rows:
            return f"{what}: no letter {wanted.ids[0]} is known"
        return f"{what}: {rows[0]['kind']} {wanted.ids[0]} is {rows[0]['state']}"

    async def verify(self, request_id: UUID, by: Actor) -> None:
        """Verify an unverified booking again: it becomes uncertain, and its verification is due now."""

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                if await connection.execute(VERIFY, request_id) != "UPDATE 1":
                    raise Refusal(f"{request_id} is no unverified booking: only those can be verified")
                await connection.execute("DELETE FROM discarded_bookings WHERE request_id = $1", request_id)
                await write_down(connection, by, "dead.verify", str(request_id))

        await self._pool.run(work)
