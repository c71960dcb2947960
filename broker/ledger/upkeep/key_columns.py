"""The columns that depend on a key: sealed content, citizens' tokens, and tokens that are not renewed.

Data, and the SQL made from it, for reseal.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetainedKey:
    """A column with the id of a token key, whose tokens are never renewed.

    `why`: what the token is for; `where`: the rows that still use it.
    """

    column: str
    why: str
    where: str = "true"


@dataclass(frozen=True, slots=True)
class SealedTable:
    """One table with sealed columns; content is sealed for the row's key.

    `fields`: sealed column -> the field name under which it is sealed. `citizen_in`: the sealed column with the JSON
    object that contains the CPR number, from which the citizen's token is renewed. `kept`: keys that are not renewed.
    `same`: whether the table has a token of queue and body (dead messages), which is renewed too.
    """

    table: str
    key: str
    fields: dict[str, str]
    citizen_in: str
    kept: tuple[RetainedKey, ...] = ()
    same: bool = False

    @property
    def read(self) -> str:
        """The columns that are read for a renewal, and compared before it is written."""
        more = ("same_token", "same_key", "queue") if self.same else ()
        return ", ".join((self.key, *self.fields, "citizen_token", "citizen_key", *more))


# A new sealed column must be added here; a test compares this with the tables.
SEALED_TABLES = (
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
        # Used only while an equal failure could still be merged into the report.
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

# The key id of sealed bytes: in clear, after the version and the length of the id (sealing.py).
KEY_OF = "convert_from(substring({column} FROM 3 FOR get_byte({column}, 1)), 'SQL_ASCII')"
READABLE = "length({column}) > 2 AND get_byte({column}, 0) = 1"


def outdated(table: SealedTable) -> str:
    """SQL for the rows of a page with older keys; $3: the header of new seals, $4: the newest token key."""
    conditions = [
        f"{column} IS NOT NULL AND substring({column} FROM 1 FOR length($3::bytea)) <> $3::bytea"
        for column in table.fields
    ]
    conditions += ["citizen_key IS NOT NULL AND citizen_key <> $4::text"]
    conditions += ["same_key <> $4::text"] if table.same else []
    any_outdated = " OR ".join(f"({condition})" for condition in conditions)
    return (
        f"SELECT {table.read} FROM {table.table} WHERE {table.key} BETWEEN $1 AND $2 AND ({any_outdated})"
        f" ORDER BY {table.key}"
    )


def rewrite(table: SealedTable) -> str:
    """SQL that writes renewed rows, except rows that changed since they were read or are locked."""
    columns = [*table.fields, "citizen_token", "citizen_key"] + (
        ["same_token", "same_key"] if table.same else []
    )
    kinds = {column: "text" if column.endswith("_key") else "bytea" for column in columns}
    arrays = ["$1::uuid[]"]
    arrays += [f"${n}::{kinds[c]}[]" for n, c in enumerate(columns, 2)]
    arrays += [f"${n}::{kinds[c]}[]" for n, c in enumerate(columns, 2 + len(columns))]
    names = ", ".join(["id", *(f"old_{c}" for c in columns), *(f"new_{c}" for c in columns)])
    sets = ", ".join(f"{c} = given.new_{c}" for c in columns)
    unchanged = " AND ".join(f"stored.{c} IS NOT DISTINCT FROM given.old_{c}" for c in columns)
    return f"""
        WITH unlocked AS (
            SELECT {table.key} AS id FROM {table.table} WHERE {table.key} = ANY($1::uuid[])
            ORDER BY {table.key} FOR NO KEY UPDATE SKIP LOCKED)
        UPDATE {table.table} AS stored SET {sets}
        FROM unnest({", ".join(arrays)}) AS given ({names}) JOIN unlocked USING (id)
        WHERE stored.{table.key} = id AND {unchanged}
    """


def key_counts(table: SealedTable) -> list[tuple[str, bool, str]]:
    """(use, whether it is a sealing key, SQL that counts a page's rows by key id); $3: the merge window."""
    page = f"FROM {table.table} WHERE {table.key} BETWEEN $1 AND $2 AND $3::interval IS NOT NULL"
    tokens = [RetainedKey("citizen_key", "finding citizens", "citizen_key IS NOT NULL"), *table.kept]
    if table.same:
        tokens.append(RetainedKey("same_key", "recognising a replay that came back"))
    sealed = [
        (f"{table.table}.{column}", True, _count_sealed(page).format(column=column))
        for column in table.fields
    ]
    return sealed + [
        (
            f"{table.table}.{token.column}: {token.why}",
            False,
            f"SELECT {token.column} AS key_id, count(*) AS count {page} AND {token.where} GROUP BY 1",
        )
        for token in tokens
    ]


def _count_sealed(page: str) -> str:
    return (
        f"SELECT CASE WHEN {READABLE} THEN {KEY_OF} ELSE '?' END AS key_id, count(*) AS count {page}"
        " AND {column} IS NOT NULL GROUP BY 1"
    )


LOGGED = """
SELECT citizen_key AS key_id, count(*) AS count FROM operator_log
WHERE id BETWEEN $1 AND $2 AND $3::interval IS NOT NULL AND citizen_key IS NOT NULL GROUP BY 1
"""
# The log is append-only and does not contain the number, so its tokens cannot be renewed. A key that only the log uses
# may be retired; its entries can then still be found by subject, actor and time.
LOGGED_FOR = "operator_log.citizen_key: finding who looked a citizen up"
