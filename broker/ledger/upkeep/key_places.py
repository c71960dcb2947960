"""Where the ledger keeps what depends on a key: sealed columns, tokens of citizens, and tokens that stay as they are.

Data, and the SQL made of it; `reseal.py` walks it. Names no key.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetainedKey:
    """A key id that rows name and that is never rewritten: `where` says which rows still use it, `why` for what."""

    column: str
    why: str
    where: str = "true"


@dataclass(frozen=True, slots=True)
class SealedTable:
    """One table. `fields`: sealed column -> the field name it is sealed under; the row's key is the id it is for.

    The citizen's token is made again from the CPR number in `told_by`, a sealed column with a JSON object.
    """

    table: str
    key: str
    fields: dict[str, str]
    told_by: str
    kept: tuple[RetainedKey, ...] = ()
    same: bool = False
    """Whether it has a token of queue and body (dead messages), which is made again too."""

    @property
    def read(self) -> str:
        """The columns that a rewrite reads, and compares before it writes."""
        more = ("same_token", "same_key", "queue") if self.same else ()
        return ", ".join((self.key, *self.fields, "citizen_token", "citizen_key", *more))


PLACES = (
    SealedTable(
        "requests",
        "request_id",
        {"message": "message", "answer": "answer"},
        "message",
        (
            RetainedKey("turn_key", "turns that are held", "turn IS NOT NULL"),
            RetainedKey("business_key", "recognising a repeated request"),
        ),
    ),
    SealedTable(
        "reports",
        "report_id",
        {"content": "report"},
        "content",
        # Only as long as an equal failure could be merged into it.
        (
            RetainedKey(
                "merge_key",
                "merging equal failures",
                "merge_token IS NOT NULL AND created_at > (SELECT ledger_now()) - $3::interval",
            ),
        ),
    ),
    SealedTable(
        "dead_messages", "letter_id", {"body": "body", "properties": "properties"}, "body", same=True
    ),
)
"""A new sealed column belongs here; a test compares this with the tables."""

KEY_OF = "convert_from(substring({column} FROM 3 FOR get_byte({column}, 1)), 'SQL_ASCII')"
"""The key id of sealed bytes: it stands in clear behind the version and its own length (sealing.py)."""
READABLE = "length({column}) > 2 AND get_byte({column}, 0) = 1"


def behind(place: SealedTable) -> str:
    """Rows of a page that something newer is to be made of: $3 the header of new seals, $4 the newest token key."""
    old = [
        f"{column} IS NOT NULL AND substring({column} FROM 1 FOR length($3::bytea)) <> $3::bytea"
        for column in place.fields
    ]
    old += ["citizen_key IS NOT NULL AND citizen_key <> $4::text"]
    old += ["same_key <> $4::text"] if place.same else []
    any_old = " OR ".join(f"({one})" for one in old)
    return (
        f"SELECT {place.read} FROM {place.table} WHERE {place.key} BETWEEN $1 AND $2 AND ({any_old})"
        f" ORDER BY {place.key}"
    )


def rewrite(place: SealedTable) -> str:
    """Rows are written only if every byte is still the one that was read; whoever holds a row is not waited for."""
    columns = [*place.fields, "citizen_token", "citizen_key"] + (
        ["same_token", "same_key"] if place.same else []
    )
    kinds = {column: "text" if column.endswith("_key") else "bytea" for column in columns}
    arrays = ["$1::uuid[]"]
    arrays += [f"${n}::{kinds[c]}[]" for n, c in enumerate(columns, 2)]
    arrays += [f"${n}::{kinds[c]}[]" for n, c in enumerate(columns, 2 + len(columns))]
    names = ", ".join(["id", *(f"old_{c}" for c in columns), *(f"new_{c}" for c in columns)])
    sets = ", ".join(f"{c} = given.new_{c}" for c in columns)
    unchanged = " AND ".join(f"it.{c} IS NOT DISTINCT FROM given.old_{c}" for c in columns)
    return f"""
        WITH free AS (
            SELECT {place.key} AS id FROM {place.table} WHERE {place.key} = ANY($1::uuid[])
            ORDER BY {place.key} FOR NO KEY UPDATE SKIP LOCKED)
        UPDATE {place.table} AS it SET {sets}
        FROM unnest({", ".join(arrays)}) AS given ({names}) JOIN free USING (id)
        WHERE it.{place.key} = id AND {unchanged}
    """


def uses(place: SealedTable) -> list[tuple[str, bool, str]]:
    """(what for, whether of a sealing key, SQL that counts a page's rows by key id); $3 is the merge window."""
    page = f"FROM {place.table} WHERE {place.key} BETWEEN $1 AND $2 AND $3::interval IS NOT NULL"
    found = [
        (
            f"{place.table}.{column}",
            True,
            f"SELECT CASE WHEN {READABLE} THEN {KEY_OF} ELSE '?' END AS key_id, count(*) AS count {page}"
            " AND {column} IS NOT NULL GROUP BY 1",
        )
        for column in place.fields
    ]
    sealed = [(name, of, sql.format(column=name.partition(".")[2])) for name, of, sql in found]
    tokens = [RetainedKey("citizen_key", "finding citizens", "citizen_key IS NOT NULL"), *place.kept]
    if place.same:
        tokens.append(RetainedKey("same_key", "recognising a replay that came back"))
    return sealed + [
        (
            f"{place.table}.{one.column}: {one.why}",
            False,
            f"SELECT {one.column} AS key_id, count(*) AS count {page} AND {one.where} GROUP BY 1",
        )
        for one in tokens
    ]


LOGGED = """
SELECT citizen_key AS key_id, count(*) AS count FROM operator_log
WHERE id BETWEEN $1 AND $2 AND $3::interval IS NOT NULL AND citizen_key IS NOT NULL GROUP BY 1
"""
LOGGED_FOR = "operator_log.citizen_key: finding who looked a citizen up"
"""Append-only and without the number, so it cannot be made again: a key that only this names may be retired, and
those entries are then found by subject, actor and time alone."""
