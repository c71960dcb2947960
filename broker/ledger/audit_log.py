"""The operators' log: who did what, when, why and to which subject. Append-only, enforced by a trigger in PostgreSQL.

An entry is written in the transaction of its action. It contains no personal data: a citizen is named by a token, so
that the question "who looked me up" can be answered without the CPR number.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker.errors import BrokerError
from broker.ledger.postgres.connections import Connection, Pool
from broker.sealing import Token
from broker.telemetry.redaction import scrub

MOST_REASON = 500
MOST_ENTRIES = 1000

WRITE = """
INSERT INTO operator_log (actor, action, reason, subject, details, citizen_token, citizen_key)
VALUES ($1, $2, $3, $4, $5::jsonb, $6, $7)
"""

READ = """
SELECT id, at, actor, action, reason, subject, details::text AS details FROM operator_log
WHERE ($1::text IS NULL OR subject = $1) AND ($2::text IS NULL OR actor = $2)
    AND ($3::text IS NULL OR action = $3) AND ($4::bytea[] IS NULL OR citizen_token = ANY($4))
    AND ($5::bigint IS NULL OR id < $5)
ORDER BY id DESC LIMIT $6
"""


class Refusal(BrokerError):
    """The operator's request is not possible; the text says why, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Actor:
    """An operator's name and reason, required for every action. Raises Refusal when one is empty or not allowed."""

    name: str
    reason: str

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise Refusal("an action needs a name: log in, or give --as NAME")
        if not self.reason.strip():
            raise Refusal("a reason is needed; it is kept in the operators' log")
        if scrub(self.reason) != self.reason or scrub(self.name) != self.name:
            raise Refusal(
                "a reason must not hold a CPR number, because the log is kept: name the citizen by an id"
            )
        if len(self.reason) > MOST_REASON or len(self.name) > 100:
            raise Refusal(f"a reason has at most {MOST_REASON} characters, a name at most 100")


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of the operators' log."""

    id: int
    at: datetime
    actor: str
    action: str
    reason: str
    subject: str
    details: dict[str, Any]


def login_name() -> str:
    """The login name of the user; empty when the machine knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


async def write_down(
    connection: Connection,
    by: Actor,
    action: str,
    subject: str,
    details: Mapping[str, Any] | None = None,
    citizen: Token | None = None,
) -> None:
    """Write one entry, in the caller's transaction."""
    await connection.execute(
        WRITE,
        by.name.strip(),
        action,
        by.reason.strip(),
        subject,
        json.dumps(details or {}, default=str),
        citizen.digest if citizen else None,
        citizen.key_id if citizen else None,
    )


class OperatorLog:
    """Reads the log, newest entries first. Raises LedgerAway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def entries(
        self,
        *,
        subject: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        citizen: tuple[Token, ...] | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[LogEntry]:
        """At most `limit` (and 1000) entries; with `before`, entries older than that id."""
        digests = [token.digest for token in citizen] if citizen is not None else None

        async def work(connection: Connection) -> list[Any]:
            most = min(limit, MOST_ENTRIES)
            return await connection.fetch(READ, subject, actor, action, digests, before, most)

        rows = await self._pool.run(work)
        return [LogEntry(**{**row, "details": json.loads(row["details"])}) for row in rows]

    async def note(self, by: Actor, action: str, subject: str) -> None:
        """Write an entry in a transaction of its own, for an action outside the ledger."""

        async def work(connection: Connection) -> None:
            await write_down(connection, by, action, subject)

        await self._pool.run(work)
