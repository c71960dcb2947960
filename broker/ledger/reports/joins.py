"""Citizens' reports that wait for the failed request they name: found when they may go, and made due.

Tokens tell whether the citizen is the same; the caller composes the joined content.
"""

from __future__ import annotations

import json
from datetime import datetime
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
SELECT r.report_id, r.content, q.request_id, q.type, q.message, q.answer,
    q.citizen_token AS failed_token, q.citizen_key AS failed_key
FROM reports AS r LEFT JOIN requests AS q ON q.request_id = r.joins
WHERE r.state = 'joining'
    AND (r.due_at <= (SELECT ledger_now()) OR q.state IN ('settled', 'unverified'))
ORDER BY r.due_at LIMIT $1
"""

JOIN = """
UPDATE reports SET state = 'waiting', content = coalesce($2, content), due_at = ledger_now(),
    error_code = coalesce($3, error_code), occurred_at = coalesce($4, occurred_at)
WHERE report_id = $1 AND state = 'joining'
"""


class Joins:
    """`ledger.reports.joins`. Processes may read the same reports; the first `join` wins. Raises LedgerAway."""

    def __init__(self, pool: Pool, sealer: FieldSealer) -> None:
        self._pool = pool
        self._sealer = sealer

    async def joinable(self, limit: int) -> list[Joinable]:
        """Reports that may go: their request has ended, or they have waited long enough. Join each."""

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(JOINABLE, limit)

        opened = [await self._opened(row) for row in await self._pool.run(work)]
        return [joinable for joinable in opened if joinable is not None]

    async def _opened(self, row: SealedRow) -> Joinable | None:
        """None if the content cannot be decrypted: it is passed on unchanged, and claiming it makes it dead."""
        try:
            content = self._sealer.open(row["report_id"], "report", row["content"])
            failed, answer = self._failed(row, content)
        except SealBroken as broken:
            log.error("report-does-not-open", report_id=row["report_id"], reason=str(broken))
            await self.join(row["report_id"], None)
            return None
        return Joinable(row["report_id"], content, row["type"] if failed else None, failed, answer)

    def _failed(self, row: SealedRow, content: bytes) -> tuple[bytes | None, bytes | None]:
        """Message and answer of the failed request; None if there is none, or it is another citizen's."""
        if row["request_id"] is None:
            return None, None
        reporter = Cpr(json.loads(content)["cpr"])
        # By the key that the request's row names: it may be older than the key of the report's row.
        token = self._sealer.citizen(reporter, row["failed_key"])
        if not token.same(Token(row["failed_key"], row["failed_token"])):
            return None, None
        message = self._sealer.open(row["request_id"], "message", row["message"])
        return message, self._answer(row)

    def _answer(self, row: SealedRow) -> bytes | None:
        """The failed request's answer. Without it a report is joined all the same."""
        try:
            return self._sealer.open(row["request_id"], "answer", row["answer"]) if row["answer"] else None
        except SealBroken as broken:
            log.error("answer-does-not-open", request_id=row["request_id"], reason=str(broken))
            return None

    async def join(
        self,
        report_id: UUID,
        content: bytes | None,
        error_code: int | None = None,
        occurred_at: datetime | None = None,
    ) -> bool:
        """Make it due now, with this content and its facts (None: unchanged). False if another process was first."""
        sealed = self._sealer.seal(report_id, "report", content)

        async def work(connection: Connection) -> bool:
            async with connection.transaction():
                tag = await connection.execute(JOIN, report_id, sealed, error_code, occurred_at)
                await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
            return tag == "UPDATE 1"

        return await self._pool.run(work)
