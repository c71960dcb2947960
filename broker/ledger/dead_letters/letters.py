"""Dead letters as operators see them: listed, filtered, grouped, shown, discarded, restored.

Letters are derived: two views over dead reports, unverified bookings and messages that only RabbitMQ knew. So
nothing can drift, and whatever makes a report dead makes its letter in the same commit. Replays are in
replays.py, what lies in RabbitMQ in places.py.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from broker.ledger.audit_log import Actor, Refusal, write_down
from broker.ledger.dead_letters.letter_model import COLUMNS, Filter, Group, Letter, LetterPage, PageCursor
from broker.ledger.dead_letters.lists import groups_of, page_of
from broker.ledger.postgres.connections import Connection, Pool

__all__ = ["COLUMNS", "Filter", "Group", "Letter", "LetterPage", "Letters", "PageCursor"]

MOST_AT_ONCE = 10_000
"""Letters that one discard takes; more are discarded in several steps, each logged."""


DISCARD_REPORTS = """
UPDATE reports SET state = 'discarded', discarded_at = ledger_now(),
    event_due_at = ledger_now()
WHERE report_id = ANY($1::uuid[]) AND state = 'dead' RETURNING report_id
"""
# Named by its id, a report may be discarded before it is dead, but never while somebody delivers it.
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

# Due at once: the next process that looks for verifications takes it, and may give it up again.
VERIFY = """
UPDATE requests SET state = 'uncertain', owner = NULL, epoch = epoch + 1, claim_token = NULL,
    verify_due_at = ledger_now(), uncertain_since = ledger_now(), settled_at = NULL,
    event_due_at = NULL, verify_tries = 0, dead_owners = 0
WHERE request_id = $1 AND state = 'unverified'
"""


class Letters:
    """What can be seen of dead letters and done to them at once. Raises LedgerAway, Refusal."""

    def __init__(self, lines: Pool) -> None:
        self._lines = lines

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(statement, *values)

        return await self._lines.run(work)

    async def listed(self, wanted: Filter, *, limit: int = 100, discarded: bool = False) -> list[Letter]:
        """The newest that match, at most `limit` (and 1000)."""
        return list((await self.page(wanted, limit=limit, discarded=discarded)).letters)

    async def page(
        self, wanted: Filter, *, limit: int, after: PageCursor | None = None, discarded: bool = False
    ) -> LetterPage:
        """Those that match and stand behind `after`, newest first, at most `limit` (and 1000)."""
        return await self._lines.run(lambda c: page_of(c, wanted, limit, after, discarded))

    async def one(self, letter_id: UUID) -> Letter | None:
        """An open or discarded letter."""
        wanted = Filter(ids=(letter_id,))
        found = await self.listed(wanted, limit=1) or await self.listed(wanted, limit=1, discarded=True)
        return found[0] if found else None

    async def groups(self, wanted: Filter, *, limit: int = 100) -> list[Group]:
        """The largest groups first, at most `limit` (and 1000)."""
        return await self._lines.run(lambda connection: groups_of(connection, wanted, limit))

    async def counts(self) -> dict[str, int]:
        """Open letters of each queue that has any: what the depth of that queue must be."""
        rows = await self._fetch("SELECT queue, count(*) AS count FROM letters GROUP BY queue")
        return {row["queue"]: row["count"] for row in rows}

    async def discard(self, wanted: Filter, by: Actor) -> int:
        """Put them aside, at most 10,000; they can be restored until retention. Returns how many."""
        return await self._lines.run(lambda c: self._move(c, "dead.discard", "letters", DISCARDS, wanted, by))

    async def restore(self, wanted: Filter, by: Actor) -> int:
        """Undo a discard."""
        return await self._lines.run(
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
        """The sentence for an operator whose wish touched nothing."""
        what = "nothing to discard" if action == "dead.discard" else "nothing to restore"
        if wanted.ids is None or len(wanted.ids) != 1:
            return f"{what}: no letter matches"
        rows = await connection.fetch(WHY_NOT, wanted.ids[0])
        if not rows:
            return f"{what}: no letter {wanted.ids[0]} is known"
        return f"{what}: {rows[0]['kind']} {wanted.ids[0]} is {rows[0]['state']}"

    async def verify(self, request_id: UUID, by: Actor) -> None:
        """Look a dead booking up again: it is uncertain, and its verification due now. Raises Refusal."""

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                if await connection.execute(VERIFY, request_id) != "UPDATE 1":
                    raise Refusal(f"{request_id} is no unverified booking: only those can be verified")
                await connection.execute("DELETE FROM discarded_bookings WHERE request_id = $1", request_id)
                await write_down(connection, by, "dead.verify", str(request_id))

        await self._lines.run(work)
