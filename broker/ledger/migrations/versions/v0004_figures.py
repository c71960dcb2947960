"""For the console: counts per minute, the history of lanes, the last conservation check, consumers of a worker.

Expands only: processes of 0003 work on beside it. Indexes on tables that may be large are in postgres/indexes.py.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

# The dead letters of 0003 with one view for each kind, so that a list of one kind can be read from an index.
KINDS = {
    "letters_of_reports": """
        SELECT report_id AS letter_id, 'report' AS kind,
            CASE WHEN coalesce(supplier, '') = '' THEN 'jobnet.citizen-reports.dead'
                 ELSE 'jobnet.reports.' || supplier || '.dead' END AS queue,
            coalesce(cause, 'unknown') AS cause, coalesce(cause_class, 'ours') AS cause_class,
            left(md5(concat_ws('|', coalesce(supplier, ''), coalesce(cause, 'unknown'), coalesce(fault, ''))), 12)
                AS fingerprint,
            fault, coalesce(supplier, '') AS supplier, jobcenter_code, type, error_code, attempts,
            coalesce(first_failed_at, created_at) AS first_seen_at,
            coalesce(last_failed_at, settled_at, created_at) AS last_seen_at
        FROM reports WHERE state = 'dead'
    """,
    "letters_of_bookings": """
        SELECT request_id AS letter_id, 'booking' AS kind, 'jobnet.bookings.dead' AS queue, 'unverified' AS cause,
            'moment' AS cause_class, left(md5(concat_ws('|', supplier, 'unverified', '')), 12) AS fingerprint,
            NULL AS fault, supplier, jobcenter_code, type, error_code, verify_tries AS attempts,
            coalesce(uncertain_since, created_at) AS first_seen_at, coalesce(settled_at, created_at) AS last_seen_at
        FROM requests WHERE state = 'unverified'
            AND NOT EXISTS (SELECT FROM discarded_bookings AS d WHERE d.request_id = requests.request_id)
    """,
    "letters_of_messages": """
        SELECT letter_id, 'message' AS kind, queue, cause, cause_class,
            left(md5(concat_ws('|', queue, cause, coalesce(type, ''))), 12) AS fingerprint,
            NULL AS fault, '' AS supplier, jobcenter_code, type, NULL::integer AS error_code, attempts,
            first_seen_at, last_seen_at
        FROM dead_messages WHERE state IN ('open', 'replaying')
    """,
}

STATEMENTS = (
    """
    CREATE TABLE flow (
        minute timestamptz NOT NULL,
        worker uuid NOT NULL,
        what text NOT NULL,
        label text NOT NULL,
        count bigint NOT NULL,
        CONSTRAINT flow_pkey PRIMARY KEY (minute, worker, what, label)
    )
    """,
    """
    CREATE TABLE lane_changes (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL,
        supplier text NOT NULL,
        before text NOT NULL,
        state text NOT NULL,
        parked_until timestamptz,
        reason text,
        by text,
        attention text
    )
    """,
    "CREATE INDEX lane_changes_supplier_idx ON lane_changes (supplier, id)",
    # append_only() from 0002 allows no UPDATE, and DELETE only to retention.
    """
    CREATE TRIGGER lane_changes_rows BEFORE UPDATE OR DELETE ON lane_changes
        FOR EACH ROW EXECUTE FUNCTION append_only()
    """,
    """
    CREATE TRIGGER lane_changes_whole BEFORE TRUNCATE ON lane_changes
        FOR EACH STATEMENT EXECUTE FUNCTION append_only()
    """,
    """
    CREATE TABLE last_looks (
        name text PRIMARY KEY,
        at timestamptz NOT NULL,
        figures jsonb NOT NULL
    )
    """,
    # Changes the catalogue only: no row is rewritten, so the lock is short.
    "ALTER TABLE workers ADD COLUMN host text, ADD COLUMN expected integer, ADD COLUMN consuming integer,"
    " ADD COLUMN problem text",
    "ALTER TABLE attempt_results ADD COLUMN supplier text",
    *(f"CREATE VIEW {name} AS {select}" for name, select in KINDS.items()),
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
