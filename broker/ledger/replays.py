"""Replays: a frozen set of letters, one canary first, then the rest at a rate, stopped when the failure returns.

A replay is a row with its items, so that any process carries it on and a crash loses nothing. Reports are set
waiting again here; messages are handed out to be published (replaying.py). Bookings are never carried out late.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from broker.ledger.lanes import ADD as ADD_LANE
from broker.ledger.letters import COLUMNS, Filter, Letter
from broker.ledger.lines import Connection, Lines
from broker.ledger.new_reports import CHANNEL
from broker.ledger.operators import Actor, Refusal, write_down

SAMPLE = 5
MOST_ITEMS = 100_000
MOST_A_STEP = 100
"""Letters that one step of a replay sets free, whatever its rate."""
QUIET_S = 10.0
"""A message that was published again and did not come back in this time has come through."""
TAKEN_FOR = timedelta(seconds=60)
"""A message that was taken to be published and not reported as published is taken again after this."""

NO_BOOKINGS = (
    "a dead booking is never carried out late, so it cannot be replayed: verify it (its fate is looked up again)"
    " or discard it"
)

FORGET = "DELETE FROM replays WHERE state = 'prepared' AND created_at < ledger_now() - interval '1 day'"
OPEN = "INSERT INTO replays (replay_id, name, state, actor, reason, rate) VALUES ($1, $2, 'prepared', $3, $4, $5)"

GOING = """
SELECT *, extract(epoch FROM ledger_now() - advanced_at)::float8 AS idle,
    extract(epoch FROM ledger_now() - canary_at)::float8 AS canary_age
FROM replays WHERE state IN ('canary', 'running') AND replay_id <> ALL($1::uuid[])
ORDER BY advanced_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
ADVANCED = "UPDATE replays SET advanced_at = ledger_now() WHERE replay_id = $1"
CANARY = "UPDATE replays SET canary = $2, canary_at = ledger_now(), advanced_at = ledger_now() WHERE replay_id = $1"
RUN = "UPDATE replays SET state = 'running', advanced_at = ledger_now() WHERE replay_id = $1"
STOP = """
UPDATE replays SET state = 'stopped', stopped_because = $2, ended_at = ledger_now()
WHERE replay_id = $1 AND state IN ('canary', 'running')
"""
DONE = """
UPDATE replays SET state = 'done', ended_at = ledger_now() WHERE replay_id = $1 AND NOT EXISTS (
    SELECT FROM replay_items AS i WHERE i.replay_id = $1 AND i.state IN ('waiting', 'taken'))
"""

NEXT = """
SELECT letter_id, kind FROM replay_items
WHERE replay_id = $1 AND (state = 'waiting' OR state = 'taken' AND replayed_at < ledger_now() - $3::interval)
ORDER BY position LIMIT $2
"""
ITEM = """
UPDATE replay_items SET state = $3, note = $4, replayed_at = ledger_now()
WHERE replay_id = $1 AND letter_id = $2
"""

# What its supplier did before counts no more; attempts and ids stay, so the supplier can tell it is the same.
REPORT = """
UPDATE reports SET state = 'waiting', due_at = ledger_now(), retries = 0, crashes = 0, bugs = 0,
    settled_at = NULL, event_due_at = NULL, owner = NULL, supplier = coalesce(supplier, $2)
WHERE report_id = $1 AND state = 'dead' AND coalesce(supplier, $2) IS NOT NULL RETURNING report_id
"""
UNROUTED = "SELECT state, supplier, jobcenter_code FROM reports WHERE report_id = $1"

MESSAGE = """
UPDATE dead_messages SET state = 'replaying', changed_at = ledger_now()
WHERE letter_id = $1 AND state IN ('open', 'replaying') RETURNING letter_id, queue, body, properties
"""
MESSAGE_IS = "SELECT state FROM dead_messages WHERE letter_id = $1"
PUBLISHED = """
UPDATE dead_messages SET state = 'replayed', changed_at = ledger_now() WHERE letter_id = $1 AND state = 'replaying'
"""
NOT_PUBLISHED = """
UPDATE dead_messages SET state = 'open', changed_at = ledger_now() WHERE letter_id = $1 AND state = 'replaying'
"""

REPORT_FATE = """
SELECT r.state, r.cause, (
    SELECT coalesce(a.what, a.cause, a.verdict) FROM attempt_results AS a
    WHERE a.report_id = $1 AND a.finished_at >= $2 AND a.applied
        AND (a.verdict IN ('dead', 'kept') OR a.verdict = 'later' AND a.counted)
    ORDER BY a.number LIMIT 1) AS failure
FROM reports AS r WHERE r.report_id = $1
"""
# A request that ended since then came through; one that the ledger never sees is well when it stays away.
MESSAGE_FATE = """
SELECT state, cause, last_seen_at >= $2 AS returned, EXISTS (
    SELECT FROM requests AS r WHERE r.request_id = m.request_id AND r.settled_at >= $2) AS ended
FROM dead_messages AS m WHERE letter_id = $1
"""

RETURNED = """
SELECT i.letter_id, l.cause FROM replay_items AS i JOIN letters AS l
    ON l.letter_id = i.letter_id AND l.fingerprint = i.fingerprint AND l.last_seen_at >= i.replayed_at
WHERE i.replay_id = $1 AND i.state = 'replayed' LIMIT 1
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
    """What a prepared replay would do: exactly these letters and no others, whatever dies meanwhile."""

    replay_id: UUID
    name: str
    count: int
    bookings_left_out: int
    oldest: datetime | None
    sample: tuple[Letter, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is. `stopped_because` is a sentence."""

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
class Item:
    """One letter of a replay: waiting, taken, replayed or skipped (`note` says why)."""

    letter_id: UUID
    kind: str
    state: str
    note: str | None
    replayed_at: datetime | None


@dataclass(frozen=True, slots=True)
class ToPublish:
    """A message that is to be published again: still sealed."""

    replay_id: UUID
    letter_id: UUID
    queue: str
    body: bytes | None = field(repr=False)
    properties: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: the replay, how many letters it set free, and the messages to publish now."""

    replay_id: UUID
    freed: int
    messages: tuple[ToPublish, ...]


class Replays:
    """Prepare, start, stop, resume, look, and one step of any that is going. Raises LedgerAway, Refusal."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    async def prepare(self, wanted: Filter, by: Actor, *, rate: float) -> Preview:
        """Freeze the set and show it; nothing moves before `start`."""
        return await self._lines.run(lambda connection: self._prepare(connection, wanted, by, rate))

    async def _prepare(self, connection: Connection, wanted: Filter, by: Actor, rate: float) -> Preview:
        replay_id = uuid4()
        where, values = wanted.where(2)
        fill = f"""
            INSERT INTO replay_items (replay_id, letter_id, position, kind, fingerprint)
            SELECT $1, letter_id, row_number() OVER (ORDER BY first_seen_at, letter_id), kind, fingerprint
            FROM letters WHERE kind <> 'booking' AND {where}
            ORDER BY first_seen_at, letter_id LIMIT {MOST_ITEMS}
        """  # noqa: S608  built from our own names
        where_only, values_only = wanted.where(1)
        bookings = f"SELECT count(*) FROM letters WHERE kind = 'booking' AND {where_only}"  # noqa: S608
        look = f"""
            SELECT {", ".join("l." + name.strip() for name in COLUMNS.split(","))} FROM replay_items AS i
            JOIN letters AS l USING (letter_id) WHERE i.replay_id = $1 ORDER BY i.position LIMIT {SAMPLE}
        """  # noqa: S608  built from our own names
        async with connection.transaction():
            await connection.execute(FORGET)
            await connection.execute(OPEN, replay_id, wanted.in_words(), by.name, by.reason, rate)
            count = int((await connection.execute(fill, replay_id, *values)).split()[-1])
            left_out = await connection.fetchval(bookings, *values_only)
            if not count:
                raise Refusal(NO_BOOKINGS if left_out else "nothing to replay: no dead letter matches")
            if left_out and wanted.ids is not None:
                raise Refusal(NO_BOOKINGS)
            sample = tuple(Letter(**row) for row in await connection.fetch(look, replay_id))
        oldest = sample[0].first_seen_at if sample else None
        return Preview(replay_id, wanted.in_words(), count, left_out, oldest, sample)

    async def start(self, replay_id: UUID, by: Actor) -> None:
        """Let the canary go; every process's scheduler carries the replay on from here."""
        await self._change(replay_id, by, "dead.replay", "prepared", "canary")

    async def resume(self, replay_id: UUID, by: Actor) -> None:
        """Go on with a stopped one: with another canary."""
        await self._change(replay_id, by, "dead.replay.resume", "stopped", "canary")

    async def stop(self, replay_id: UUID, by: Actor) -> None:
        """Stop one that is going; what waits stays dead."""

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                if await connection.execute(STOP, replay_id, f"stopped by {by.name}") != "UPDATE 1":
                    raise Refusal(f"no replay {replay_id} is going")
                await write_down(connection, by, "dead.replay.stop", str(replay_id))

        await self._lines.run(work)

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
                    raise Refusal(f"no replay {replay_id} is {before}")
                total = await connection.fetchval(
                    "SELECT count(*) FROM replay_items WHERE replay_id = $1", replay_id
                )
                await write_down(connection, by, action, str(replay_id), {"name": name, "count": total})

        await self._lines.run(work)

    async def progress(self, replay_id: UUID | None = None, *, limit: int = 50) -> list[Progress]:
        """One replay, or the newest that were started."""
        rows = await self._lines.run(lambda connection: connection.fetch(PROGRESS, replay_id, limit))
        return [Progress(**row) for row in rows]

    async def items(self, replay_id: UUID, *, limit: int = 1000) -> list[Item]:
        """What became of each letter."""
        rows = await self._lines.run(lambda connection: connection.fetch(ITEMS, replay_id, limit))
        return [Item(**row) for row in rows]

    async def step(
        self,
        supplier_of: Callable[[str], str | None],
        *,
        canary_wait: float,
        but_not: frozenset[UUID] = frozenset(),
    ) -> Step | None:
        """Carry on the replay that waits longest, in one commit; None when none is going.

        `supplier_of` a jobcenter code, for reports that had none; `canary_wait`: seconds after which a canary
        without an answer stops its replay.
        """

        async def work(connection: Connection) -> Step | None:
            async with connection.transaction():
                replay = await connection.fetchrow(GOING, list(but_not))
                return await _Stepping(connection, replay, supplier_of, canary_wait).go() if replay else None

        return await self._lines.run(work)

    async def published(self, message: ToPublish, problem: str | None = None) -> None:
        """It is on its work queue again, confirmed; or it cannot be, and `problem` says why."""

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute(NOT_PUBLISHED if problem else PUBLISHED, message.letter_id)
                state = "skipped" if problem else "replayed"
                await connection.execute(ITEM, message.replay_id, message.letter_id, state, problem)

        await self._lines.run(work)


@dataclass(frozen=True, slots=True)
class _Stepping:
    """One step of one replay, whose row is locked."""

    connection: Connection
    replay: Any
    supplier_of: Callable[[str], str | None]
    canary_wait: float

    @property
    def id(self) -> UUID:
        return UUID(str(self.replay["replay_id"]))

    async def go(self) -> Step:
        if self.replay["state"] == "canary":
            return await self._canary()
        if returned := await self.connection.fetchrow(RETURNED, self.id):
            return await self._stop(f"{returned['cause']} returned: {returned['letter_id']}")
        allowed = int(min(self.replay["rate"] * self.replay["idle"], MOST_A_STEP))
        return await self._free(allowed) if allowed else Step(self.id, 0, ())

    async def _canary(self) -> Step:
        canary = self.replay["canary"]
        if canary is None:
            return await self._first()
        fate = await self._fate(canary)
        await self.connection.execute(ADVANCED, self.id)
        if fate == "gone":
            return await self._first()
        if fate == "well":
            await self.connection.execute(RUN, self.id)
            await self.connection.execute(DONE, self.id)
        elif fate != "open":
            return await self._stop(f"the first one, {canary}, did not come through: {fate}")
        return Step(self.id, 0, ())

    async def _first(self) -> Step:
        """Free one letter, and wait for what becomes of it."""
        for row in await self.connection.fetch(NEXT, self.id, MOST_A_STEP, TAKEN_FOR):
            freed, message = await self._one(row)
            if freed:
                await self.connection.execute(CANARY, self.id, row["letter_id"])
                return Step(self.id, 1, (message,) if message else ())
        await self.connection.execute(ADVANCED, self.id)
        await self.connection.execute(DONE, self.id)
        return Step(self.id, 0, ())

    async def _free(self, allowed: int) -> Step:
        messages, count = list[ToPublish](), 0
        for row in await self.connection.fetch(NEXT, self.id, allowed, TAKEN_FOR):
            freed, message = await self._one(row)
            count += freed
            messages += [message] if message else []
        await self.connection.execute(ADVANCED, self.id)
        await self.connection.execute(DONE, self.id)
        return Step(self.id, count, tuple(messages))

    async def _stop(self, because: str) -> Step:
        await self.connection.execute(STOP, self.id, because)
        return Step(self.id, 0, ())

    async def _one(self, item: Any) -> tuple[bool, ToPublish | None]:
        """Free one letter; what is no letter any more is skipped with its reason."""
        one = self._report if item["kind"] == "report" else self._message
        return await one(item["letter_id"])

    async def _report(self, report_id: UUID) -> tuple[bool, None]:
        row = await self.connection.fetchrow(UNROUTED, report_id)
        supplier = row["supplier"] or self.supplier_of(row["jobcenter_code"]) if row else None
        if row and row["state"] == "dead" and supplier is None:
            return await self._skip(
                report_id, f"the directory does not know jobcenter {row['jobcenter_code']}"
            )
        if supplier:
            await self.connection.execute(ADD_LANE, supplier)
        if not await self.connection.fetchval(REPORT, report_id, supplier):
            return await self._skip(report_id, f"it is {row['state']}" if row else "it is gone")
        await self.connection.execute(ITEM, self.id, report_id, "replayed", None)
        await self.connection.execute("SELECT pg_notify($1, '')", CHANNEL)  # a commit's are one
        return True, None

    async def _message(self, letter_id: UUID) -> tuple[bool, ToPublish | None]:
        row = await self.connection.fetchrow(MESSAGE, letter_id)
        if row is None:
            state = await self.connection.fetchval(MESSAGE_IS, letter_id)
            return await self._skip(letter_id, f"it is {state or 'gone'}")
        await self.connection.execute(ITEM, self.id, letter_id, "taken", None)
        return True, ToPublish(replay_id=self.id, **row)

    async def _skip(self, letter_id: UUID, note: str) -> tuple[bool, None]:
        await self.connection.execute(ITEM, self.id, letter_id, "skipped", note)
        return False, None

    def _patience(self) -> str:
        late = self.replay["canary_age"] >= self.canary_wait
        return f"no answer in {self.canary_wait:.0f} s (its lane may be parked or paused)" if late else "open"

    async def _fate(self, canary: UUID) -> str:
        """ "well", "open" (not known yet), "gone" (taken out of our hands), or what failed."""
        since = self.replay["canary_at"]
        if report := await self.connection.fetchrow(REPORT_FATE, canary, since):
            settled = {"delivered": "well", "discarded": "gone", "dead": str(report["cause"])}
            return settled.get(report["state"]) or report["failure"] or self._patience()
        message = await self.connection.fetchrow(MESSAGE_FATE, canary, since)
        if message is None or message["state"] == "discarded":
            return "gone"
        if message["state"] == "open":
            return str(message["cause"]) if message["returned"] else "gone"
        if message["state"] == "replaying":  # whoever took it may have died before it was published
            return "gone" if self.replay["canary_age"] >= TAKEN_FOR.total_seconds() else "open"
        quiet = self.replay["canary_age"] >= min(self.canary_wait, QUIET_S)
        return "well" if quiet or message["ended"] else "open"
