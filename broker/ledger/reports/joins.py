"""Citizens' reports that wait for the failed request they name: found when they may go, and sent on their way.

Whether the citizen is the same is judged by tokens; what the report becomes is composed by the caller.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from broker.ledger.postgres.connections import Connection, Pool
from broker.ledger.postgres.sealed import FieldSealer, SealedRow
from broker.ledger.reports.new_reports import CHANNEL
from broker.ledger.reports.report_model import Joinable
from broker.sealing import SealBroken, Token
from broker.telemetry.log import get_logger
from schemas.personal import Cpr

log = get_logger("ledger.joins")

JOINABLE = """
SELECT r.report_id, r.content, q.request_id, q.type, q.message,
    q.citizen_token AS its_token, q.citizen_key AS its_key
FROM reports AS r LEFT JOIN requests AS q ON q.request_id = r.joins
WHERE r.state = 'joining'
    AND (r.due_at <= (SELECT ledger_now()) OR q.state IN ('settled', 'unverified'))
ORDER BY r.due_at LIMIT $1
"""

JOIN = """
UPDATE reports SET state = 'waiting', content = coalesce($2, content), due_at = ledger_now()
WHERE report_id = $1 AND state = 'joining'
"""


class Joins:
    """Every process may look at the same ones; the first to join one wins. All raise LedgerAway."""

    def __init__(self, lines: Pool, safe: FieldSealer) -> None:
        self._lines = lines
        self._safe = safe

    async def joinable(self, limit: int) -> list[Joinable]:
        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(JOINABLE, limit)

        found = [await self._opened(row) for row in await self._lines.run(work)]
        return [one for one in found if one is not None]

    async def _opened(self, row: SealedRow) -> Joinable | None:
        """What does not open goes as it is; its claim will say so."""
        try:
            content = self._safe.open(row["report_id"], "report", row["content"])
            failed = self._failed(row, content)
        except SealBroken as broken:
            log.error("report-does-not-open", report_id=row["report_id"], reason=str(broken))
            await self.join(row["report_id"], None)
            return None
        return Joinable(row["report_id"], content, row["type"] if failed else None, failed)

    def _failed(self, row: SealedRow, content: bytes) -> bytes | None:
        """With the key that the request's row names: it may be older than the reporter's."""
        if row["request_id"] is None:
            return None
        reporter = Cpr(json.loads(content)["cpr"])
        if not self._safe.citizen(reporter, row["its_key"]).same(Token(row["its_key"], row["its_token"])):
            return None
        return self._safe.open(row["request_id"], "message", row["message"])

    async def join(self, report_id: UUID, content: bytes | None) -> bool:
        sealed = self._safe.seal(report_id, "report", content)

        async def work(connection: Connection) -> bool:
            async with connection.transaction():
                tag = await connection.execute(JOIN, report_id, sealed)
                await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
            return tag == "UPDATE 1"

        return await self._lines.run(work)
