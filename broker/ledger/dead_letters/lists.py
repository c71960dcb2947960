"""Lists and groups of dead letters, fast with a hundred thousand letters."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from broker.ledger.dead_letters.letter_model import (
    COLUMNS,
    TREND_HOURS,
    Filter,
    Group,
    Letter,
    LetterPage,
    PageCursor,
)
from broker.ledger.postgres.connections import Connection

MOST_LISTED = 1000

# A list queries each kind of letter by itself and merges: each query then reads only the first rows of an index
# (postgres/indexes.py). For one view over all kinds PostgreSQL does not choose these indexes.
OPEN = ("letters_of_reports", "letters_of_bookings", "letters_of_messages")
DISCARDED = ("discarded_letters",)

NEWEST = "ORDER BY last_seen_at DESC, letter_id DESC LIMIT $1"
OF_KIND = "(SELECT {columns} FROM {view} WHERE {where} {newest})"
AFTER = " AND (last_seen_at, letter_id) < (${}::timestamptz, ${}::uuid)"

GROUPED = "fingerprint, queue, kind, cause, cause_class, fault, supplier"
# First by hour, then in total: the outer query has a few thousand rows instead of a hundred thousand.
GROUPS = """
SELECT {grouped}, sum(letters)::bigint AS count, min(first_seen_at) AS first_seen_at,
    max(last_seen_at) AS last_seen_at, array_agg(ago) AS ago, array_agg(letters) AS letters
FROM (
    SELECT {grouped}, count(*) AS letters, min(first_seen_at) AS first_seen_at, max(last_seen_at) AS last_seen_at,
        CASE WHEN last_seen_at > now.at - $2::interval
             THEN floor(extract(epoch FROM now.at - last_seen_at) / 3600)::integer END AS ago
    FROM letters, (SELECT ledger_now() AS at) AS now WHERE {where} GROUP BY {grouped}, ago) AS hours
GROUP BY {grouped} ORDER BY count DESC, fingerprint LIMIT $1
"""


async def page_of(
    connection: Connection, wanted: Filter, limit: int, after: PageCursor | None, discarded: bool
) -> LetterPage:
    """One page of `Letters.page`."""
    limit = max(1, min(limit, MOST_LISTED))
    where, values = wanted.where(2)
    if after is not None:
        where += AFTER.format(len(values) + 2, len(values) + 3)
        values += [after.at, after.letter_id]
    parts = [
        OF_KIND.format(columns=COLUMNS, view=view, where=where, newest=NEWEST)
        for view in (DISCARDED if discarded else OPEN)
    ]
    statement = f"SELECT * FROM ({' UNION ALL '.join(parts)}) AS letters {NEWEST}"
    rows = await connection.fetch(statement, limit + 1, *values)
    letters = tuple(Letter(**row) for row in rows[:limit])
    more = len(rows) > limit
    return LetterPage(letters, PageCursor(letters[-1].last_seen_at, letters[-1].letter_id) if more else None)


async def groups_of(connection: Connection, wanted: Filter, limit: int) -> list[Group]:
    """The groups of `Letters.groups`."""
    where, values = wanted.where(3)
    statement = GROUPS.format(grouped=GROUPED, where=where)
    span = timedelta(hours=TREND_HOURS)
    rows = await connection.fetch(statement, min(limit, MOST_LISTED), span, *values)
    return [_group(dict(row)) for row in rows]


def _group(row: dict[str, Any]) -> Group:
    trend = [0] * TREND_HOURS
    for ago, letters in zip(row.pop("ago"), row.pop("letters"), strict=True):
        if ago is not None:
            trend[TREND_HOURS - 1 - max(0, min(ago, TREND_HOURS - 1))] += letters
    return Group(**row, trend=tuple(trend))
