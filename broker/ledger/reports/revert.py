"""Takes reports back from `handed` to `waiting`, uncounted: the three ways in which a hand-over comes to nothing.

A message that did reach its lane is dropped by the consumer, because its number or the report's state no longer fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from broker.ledger.postgres.connections import Connection
from broker.ledger.reports.report_model import HandedOver

UNPUBLISHED = """
UPDATE reports SET state = 'waiting', handed_at = NULL
FROM unnest($1::uuid[], $2::bigint[]) AS given (id, number)
WHERE report_id = given.id AND reports.number = given.number AND state = 'handed'
"""

OF_CLOSED_LANE = """
UPDATE reports SET state = 'waiting', handed_at = NULL
WHERE report_id IN (
    SELECT report_id FROM reports
    WHERE supplier = $1 AND state = 'handed' AND report_id IS DISTINCT FROM $2::uuid
    ORDER BY report_id FOR UPDATE)
"""

UNCLAIMED = """
UPDATE reports SET state = 'waiting', handed_at = NULL
WHERE report_id IN (
    SELECT report_id FROM reports
    WHERE state = 'handed' AND handed_at < (SELECT ledger_now()) - $1::interval
    ORDER BY report_id LIMIT $2 FOR UPDATE SKIP LOCKED)
"""


async def revert_unpublished(connection: Connection, handed: Iterable[HandedOver]) -> None:
    """Those whose publish failed, or was not confirmed."""
    ordered = sorted(handed, key=lambda report: report.report_id.bytes)
    ids, numbers = [report.report_id for report in ordered], [report.number for report in ordered]
    await connection.execute(UNPUBLISHED, ids, numbers)


async def revert_lane(connection: Connection, supplier: str, probe: UUID | None) -> None:
    """All that are handed over on a lane that is no longer open, except its probe."""
    await connection.execute(OF_CLOSED_LANE, supplier, probe)


async def revert_unclaimed(connection: Connection, after: timedelta, limit: int) -> int:
    """Those that were handed over longer than `after` ago and never claimed, at most `limit`. Returns how many."""
    tag = await connection.execute(UNCLAIMED, after, limit)
    return int(tag.split()[-1])
