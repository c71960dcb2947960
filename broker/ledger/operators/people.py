"""Personal data for operators: reveal one sealed field, or find all records of a citizen by CPR number.

Each use is committed to the operators' log, with the citizen as a token, before the result is returned. No other
module opens sealed content for a person (docs/privacy.md#sealing).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from broker.ledger.audit_log import Actor, Refusal, write_down
from broker.ledger.postgres.connections import Connection, Pool
from broker.sealing import SealBroken, Sealer, Token
from schemas.personal import Cpr

MOST = 1000

# Records that can be opened: kind, the field name under which the content was sealed, the sealed content.
SEALED = """
SELECT 'report' AS kind, 'report' AS field, content AS sealed FROM reports WHERE report_id = $1
UNION ALL SELECT 'message', 'body', body FROM dead_messages WHERE letter_id = $1 AND body IS NOT NULL
UNION ALL SELECT 'request', 'message', message FROM requests WHERE request_id = $1
"""

FIND = """
SELECT kind, id, state, at FROM (
    SELECT 'request' AS kind, request_id AS id, state, created_at AS at, citizen_token, citizen_key FROM requests
    UNION ALL SELECT 'report', report_id, state, created_at, citizen_token, citizen_key FROM reports
    UNION ALL SELECT 'message', letter_id, state, first_seen_at, citizen_token, citizen_key FROM dead_messages
        WHERE citizen_token IS NOT NULL
) AS everything JOIN unnest($1::bytea[], $2::text[]) AS wanted (token, key)
    ON citizen_token = wanted.token AND citizen_key = wanted.key
ORDER BY at DESC LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class CitizenRecord:
    """One record of a citizen: a request, a report or a dead message."""

    kind: str
    id: UUID
    state: str
    at: Any


class People:
    """Reveal and find. Raises LedgerAway, Refusal."""

    def __init__(self, pool: Pool, sealer: Sealer) -> None:
        self._pool = pool
        self._sealer = sealer

    async def reveal(self, record_id: UUID, field: str, by: Actor) -> str:
        """One field by its wire name (`cpr`, `fejltekst`, …); `body`: the whole body of a message that is no JSON.

        The caller shows the value once and stores it nowhere.
        """

        async def work(connection: Connection) -> str:
            async with connection.transaction():
                rows = await connection.fetch(SEALED, record_id)
                if not rows:
                    raise Refusal(f"nothing of id {record_id} is known, or its content is gone")
                value, citizen = self._field(record_id, rows[0], field)
                details = {"field": field, "kind": rows[0]["kind"]}
                await write_down(connection, by, "reveal", str(record_id), details, citizen)
            return value

        return await self._pool.run(work)

    def _field(self, record_id: UUID, row: Any, field: str) -> tuple[str, Token | None]:
        try:
            plain = self._sealer.open(row["sealed"], of=str(record_id), field=row["field"])
        except SealBroken as broken:
            raise Refusal(f"it does not open: {broken}") from None
        content = _object(plain)
        citizen = self._citizen(content.get("cpr"))
        if field == "body" and row["kind"] == "message":
            return plain.decode(errors="replace"), citizen
        if field not in content:
            names = ", ".join(sorted(name for name in content if name.isidentifier() and len(name) < 40)[:30])
            raise Refusal(f"it has no such field; it has {names or 'none that can be read: try body'}")
        value = content[field]
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), citizen

    def _citizen(self, cpr: object) -> Token | None:
        if not isinstance(cpr, str):
            return None
        return self._sealer.token(cpr.encode(), purpose="citizen")

    async def find(self, cpr: Cpr, by: Actor) -> list[CitizenRecord]:
        """All records of a citizen, newest first, at most 1000."""
        tokens = self._sealer.all_tokens(cpr.reveal().encode(), purpose="citizen")
        wanted = ([token.digest for token in tokens], [token.key_id for token in tokens])

        async def work(connection: Connection) -> list[CitizenRecord]:
            async with connection.transaction():
                rows = await connection.fetch(FIND, *wanted, MOST)
                await write_down(connection, by, "find", "a citizen", {"count": len(rows)}, tokens[0])
            return [CitizenRecord(**row) for row in rows]

        return await self._pool.run(work)


def _object(plain: bytes) -> dict[str, Any]:
    try:
        content = json.loads(plain)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
