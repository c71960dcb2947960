"""One step of a replay: start the canary and wait for its result, then the rest at the replay's rate.

Runs in the transaction that locks the replay's row, so that no letter is replayed twice. Preparing, starting and
showing replays is replays.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from broker.ledger.postgres.connections import Connection
from broker.ledger.reports.lanes import ADD as ADD_LANE
from broker.ledger.reports.new_reports import CHANNEL

MOST_A_STEP = 100
"""Upper limit of letters per step, whatever the rate."""
QUIET_S = 10.0
"""A message that did not return to the dead-letter queue within this time has succeeded."""
TAKEN_FOR = timedelta(seconds=60)
"""Lease on a message that a process takes to publish; after this another process may take it."""

STOP = """
UPDATE replays SET state = 'stopped', stopped_because = $2, ended_at = ledger_now()
WHERE replay_id = $1 AND state IN ('canary', 'running')
"""
ADVANCED = "UPDATE replays SET advanced_at = ledger_now() WHERE replay_id = $1"
CANARY = "UPDATE replays SET canary = $2, canary_at = ledger_now(), advanced_at = ledger_now() WHERE replay_id = $1"
RUN = "UPDATE replays SET state = 'running', advanced_at = ledger_now() WHERE replay_id = $1"
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

# Retries start again from zero; attempts and ids stay, so that the supplier recognises the report.
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

REPORT_RESULT = """
SELECT r.state, r.cause, (
    SELECT coalesce(a.what, a.cause, a.verdict) FROM attempt_results AS a
    WHERE a.report_id = $1 AND a.finished_at >= $2 AND a.applied
        AND (a.verdict IN ('dead', 'kept') OR a.verdict = 'later' AND a.counted)
    ORDER BY a.number LIMIT 1) AS failure
FROM reports AS r WHERE r.report_id = $1
"""
# Succeeded if its request was settled since then. A message without a request succeeded if it does not return.
MESSAGE_RESULT = """
SELECT state, cause, last_seen_at >= $2 AS returned, EXISTS (
    SELECT FROM requests AS r WHERE r.request_id = m.request_id AND r.settled_at >= $2) AS ended
FROM dead_messages AS m WHERE letter_id = $1
"""

# A replayed letter that failed again in the same way.
RETURNED = """
SELECT i.letter_id, l.cause FROM replay_items AS i JOIN letters AS l
    ON l.letter_id = i.letter_id AND l.fingerprint = i.fingerprint AND l.last_seen_at >= i.replayed_at
WHERE i.replay_id = $1 AND i.state = 'replayed' LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class ToPublish:
    """A message that is to be published again, still sealed."""

    replay_id: UUID
    letter_id: UUID
    queue: str
    body: bytes | None = field(repr=False)
    properties: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReplayStepResult:
    """The result of one step: the replay, how many letters were replayed (`freed`), and the messages to publish now."""

    replay_id: UUID
    freed: int
    messages: tuple[ToPublish, ...]


@dataclass(frozen=True, slots=True)
class ReplayStep:
    """One step of one replay. `replay` is its row, locked by `connection`."""

    connection: Connection
    replay: Any
    supplier_of: Callable[[str], str | None]
    canary_wait: float

    @property
    def id(self) -> UUID:
        return UUID(str(self.replay["replay_id"]))

    async def run(self) -> ReplayStepResult:
        """Do the step, in the caller's transaction."""
        if self.replay["state"] == "canary":
            return await self._check_canary()
        if returned := await self.connection.fetchrow(RETURNED, self.id):
            return await self._stop(f"{returned['cause']} returned: {returned['letter_id']}")
        allowed = int(min(self.replay["rate"] * self.replay["idle"], MOST_A_STEP))
        return await self._replay_next(allowed) if allowed else ReplayStepResult(self.id, 0, ())

    async def _check_canary(self) -> ReplayStepResult:
        canary = self.replay["canary"]
        if canary is None:
            return await self._start_canary()
        result = await self._canary_result(canary)
        await self.connection.execute(ADVANCED, self.id)
        if result == "gone":
            return await self._start_canary()
        if result == "succeeded":
            await self.connection.execute(RUN, self.id)
            await self.connection.execute(DONE, self.id)
        elif result != "open":
            return await self._stop(f"the canary, {canary}, failed: {result}")
        return ReplayStepResult(self.id, 0, ())

    async def _start_canary(self) -> ReplayStepResult:
        """Replay one letter; the next steps wait for its result."""
        for row in await self.connection.fetch(NEXT, self.id, MOST_A_STEP, TAKEN_FOR):
            freed, message = await self._replay_one(row)
            if freed:
                await self.connection.execute(CANARY, self.id, row["letter_id"])
                return ReplayStepResult(self.id, 1, (message,) if message else ())
        await self.connection.execute(ADVANCED, self.id)
        await self.connection.execute(DONE, self.id)
        return ReplayStepResult(self.id, 0, ())

    async def _replay_next(self, allowed: int) -> ReplayStepResult:
        messages, count = list[ToPublish](), 0
        for row in await self.connection.fetch(NEXT, self.id, allowed, TAKEN_FOR):
            freed, message = await self._replay_one(row)
            count += freed
            messages += [message] if message else []
        await self.connection.execute(ADVANCED, self.id)
        await self.connection.execute(DONE, self.id)
        return ReplayStepResult(self.id, count, tuple(messages))

    async def _stop(self, because: str) -> ReplayStepResult:
        await self.connection.execute(STOP, self.id, because)
        return ReplayStepResult(self.id, 0, ())

    async def _replay_one(self, item: Any) -> tuple[bool, ToPublish | None]:
        """Replay one letter; an item that is not a dead letter any more is skipped with a reason."""
        replay = self._report if item["kind"] == "report" else self._message
        return await replay(item["letter_id"])

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
        # PostgreSQL sends equal notifications of one transaction once.
        await self.connection.execute("SELECT pg_notify($1, '')", CHANNEL)
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

    async def _canary_result(self, canary: UUID) -> str:
        """`succeeded`, `open` (not known yet), `gone` (not part of the replay any more), or the failure."""
        since = self.replay["canary_at"]
        if report := await self.connection.fetchrow(REPORT_RESULT, canary, since):
            settled = {"delivered": "succeeded", "discarded": "gone", "dead": str(report["cause"])}
            return settled.get(report["state"]) or report["failure"] or self._open_or_late()
        message = await self.connection.fetchrow(MESSAGE_RESULT, canary, since)
        if message is None or message["state"] == "discarded":
            return "gone"
        if message["state"] == "open":
            return str(message["cause"]) if message["returned"] else "gone"
        # Still "replaying" after its lease: the process that took it died before it published it.
        if message["state"] == "replaying":
            return "gone" if self.replay["canary_age"] >= TAKEN_FOR.total_seconds() else "open"
        quiet = self.replay["canary_age"] >= min(self.canary_wait, QUIET_S)
        return "succeeded" if quiet or message["ended"] else "open"

    def _open_or_late(self) -> str:
        late = self.replay["canary_age"] >= self.canary_wait
        return f"no result in {self.canary_wait:.0f} s (its lane may be parked or paused)" if late else "open"
