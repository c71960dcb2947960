"""Dead letters as operators see them: listed, filtered, grouped, shown, discarded, restored.

Letters are derived: two views over dead reports, unverified bookings and messages that only RabbitMQ knew. So
nothing can drift, and whatever makes a report dead makes its letter in the same commit. Replays are in
replays.py, what lies in RabbitMQ in places.py.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from broker.ledger.lines import Connection, Lines
from broker.ledger.operators import Actor, Refusal, write_down

MOST_LISTED = 1000
MOST_AT_ONCE = 10_000
"""Letters that one discard takes; more are discarded in several steps, each logged."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. `letter_id` is the reportId, the requestId of a booking, or a message's own."""

    letter_id: UUID
    kind: str
    queue: str
    cause: str
    cause_class: str
    fingerprint: str
    fault: str | None
    supplier: str
    jobcenter_code: str | None
    type: str | None
    error_code: int | None
    attempts: int
    first_seen_at: datetime
    last_seen_at: datetime


COLUMNS = ", ".join(f.name for f in fields(Letter))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; None means any. `ids` narrows it to those."""

    queue: str | None = None
    kind: str | None = None
    supplier: str | None = None
    cause: str | None = None
    cause_class: str | None = None
    fingerprint: str | None = None
    fault: str | None = None
    jobcenter_code: str | None = None
    type: str | None = None
    error_code: int | None = None
    before: datetime | None = None
    after: datetime | None = None
    ids: tuple[UUID, ...] | None = None

    @property
    def empty(self) -> bool:
        """Whether it means every letter there is."""
        return all(getattr(self, f.name) is None for f in fields(self))

    def where(self, first: int = 1) -> tuple[str, list[Any]]:
        """SQL and its values; placeholders count from `first`."""
        parts, values = ["true"], list[Any]()
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None:
                values.append(list(value) if f.name == "ids" else value)
                parts.append(CONDITIONS.get(f.name, f.name + " = ${}").format(first + len(values) - 1))
        return " AND ".join(parts), values

    def in_words(self) -> str:
        """For names of replays and the operators' log: which fields, and how many ids."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if self.ids is not None:
            given["ids"] = self.ids[0] if len(self.ids) == 1 else len(self.ids)
        return ", ".join(f"{name} {value}" for name, value in given.items()) or "everything"


CONDITIONS = {
    "ids": "letter_id = ANY(${}::uuid[])",
    "before": "last_seen_at < ${}::timestamptz",
    "after": "last_seen_at >= ${}::timestamptz",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Letters that failed in the same way: one fingerprint (supplier, cause, fault) in one queue."""

    fingerprint: str
    queue: str
    kind: str
    cause: str
    cause_class: str
    fault: str | None
    supplier: str
    count: int
    first_seen_at: datetime
    last_seen_at: datetime


GROUPED = "fingerprint, queue, kind, cause, cause_class, fault, supplier"

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

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(statement, *values)

        return await self._lines.run(work)

    async def listed(self, wanted: Filter, *, limit: int = 100, discarded: bool = False) -> list[Letter]:
        """The newest that match, at most `limit` (and 1000)."""
        where, values = wanted.where(2)
        statement = (
            f"SELECT {COLUMNS} FROM {_view(discarded)} WHERE {where}"  # noqa: S608  our own names
            " ORDER BY last_seen_at DESC, letter_id LIMIT $1"
        )
        return [Letter(**row) for row in await self._fetch(statement, min(limit, MOST_LISTED), *values)]

    async def one(self, letter_id: UUID) -> Letter | None:
        """An open or discarded letter."""
        wanted = Filter(ids=(letter_id,))
        found = await self.listed(wanted, limit=1) or await self.listed(wanted, limit=1, discarded=True)
        return found[0] if found else None

    async def groups(self, wanted: Filter, *, limit: int = 100) -> list[Group]:
        """The largest groups first."""
        where, values = wanted.where(2)
        statement = f"""
            SELECT {GROUPED}, count(*) AS count, min(first_seen_at) AS first_seen_at,
                max(last_seen_at) AS last_seen_at
            FROM letters WHERE {where} GROUP BY {GROUPED} ORDER BY count(*) DESC, fingerprint LIMIT $1
        """  # noqa: S608  built from our own names
        return [Group(**row) for row in await self._fetch(statement, min(limit, MOST_LISTED), *values)]

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
        find = f"SELECT letter_id, kind FROM {view} WHERE {where} ORDER BY letter_id LIMIT $1"  # noqa: S608
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


def _view(discarded: bool) -> str:
    return "discarded_letters" if discarded else "letters"
