"""Reports, their attempts and the suppliers' lanes. Expands only: processes of 0001 work on beside it."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

STATEMENTS = (
    # One clock for all due times. Statements read it once, as (SELECT ledger_now()), so that an index can be used;
    # tests replace the function to travel in time.
    "CREATE FUNCTION ledger_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()'",
    """
    CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP <> 'UPDATE' AND current_setting('jobnet.retention', true) = 'on' THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$
    """,
    "ALTER TABLE requests ADD COLUMN report_id uuid",
    """
    CREATE TABLE reports (
        report_id uuid PRIMARY KEY,
        kind text NOT NULL,
        request_id uuid,
        supplier text,
        jobcenter_code text NOT NULL,
        type text,
        error_code integer NOT NULL,
        occurred_at timestamptz NOT NULL,
        content bytea NOT NULL,
        citizen_token bytea NOT NULL,
        citizen_key text NOT NULL,
        merge_token bytea,
        merge_key text,
        count integer NOT NULL DEFAULT 1,
        traceparent text,
        state text NOT NULL,
        due_at timestamptz NOT NULL,
        joins uuid,
        number bigint NOT NULL DEFAULT 0,
        handed_at timestamptz,
        owner uuid,
        epoch bigint NOT NULL DEFAULT 0,
        claim_token uuid,
        attempts integer NOT NULL DEFAULT 0,
        try_key integer NOT NULL DEFAULT 0,
        unanswered boolean NOT NULL DEFAULT false,
        retries integer NOT NULL DEFAULT 0,
        crashes integer NOT NULL DEFAULT 0,
        bugs integer NOT NULL DEFAULT 0,
        duplicate boolean NOT NULL DEFAULT false,
        cause text,
        cause_class text,
        fault text,
        created_at timestamptz NOT NULL DEFAULT ledger_now(),
        last_seen_at timestamptz NOT NULL DEFAULT ledger_now(),
        first_failed_at timestamptz,
        last_failed_at timestamptz,
        settled_at timestamptz,
        discarded_at timestamptz,
        event_due_at timestamptz,
        CONSTRAINT reports_kind_check CHECK (kind IN ('automatic', 'citizen')),
        CONSTRAINT reports_state_check CHECK (
            state IN ('joining', 'waiting', 'handed', 'delivering', 'delivered', 'dead', 'discarded')),
        CONSTRAINT reports_routed_check CHECK (supplier IS NOT NULL OR state IN ('dead', 'discarded')),
        CONSTRAINT reports_owned_check CHECK (state <> 'delivering' OR owner IS NOT NULL),
        CONSTRAINT reports_settled_check
            CHECK (state NOT IN ('delivered', 'dead', 'discarded') OR settled_at IS NOT NULL)
    )
    """,
    "ALTER TABLE reports SET (fillfactor = 70)",
    "CREATE INDEX reports_due_idx ON reports (supplier, due_at) WHERE state = 'waiting'",
    "CREATE INDEX reports_handed_idx ON reports (supplier, state) WHERE state IN ('handed', 'delivering')",
    "CREATE INDEX reports_joining_idx ON reports (due_at) WHERE state = 'joining'",
    "CREATE INDEX reports_event_due_idx ON reports (event_due_at) WHERE event_due_at IS NOT NULL",
    "CREATE INDEX reports_merge_idx ON reports (merge_token, created_at) WHERE merge_token IS NOT NULL",
    "CREATE INDEX reports_request_idx ON reports (request_id)",
    "CREATE INDEX reports_joins_idx ON reports (joins) WHERE joins IS NOT NULL",
    "CREATE INDEX reports_citizen_idx ON reports (citizen_token)",
    "CREATE INDEX reports_created_idx ON reports (created_at)",
    """
    CREATE TABLE attempts (
        report_id uuid NOT NULL,
        number integer NOT NULL,
        owner uuid NOT NULL,
        started_at timestamptz NOT NULL,
        x_request_id text NOT NULL,
        probe boolean NOT NULL,
        CONSTRAINT attempts_pkey PRIMARY KEY (report_id, number)
    )
    """,
    """
    CREATE TABLE attempt_results (
        report_id uuid NOT NULL,
        number integer NOT NULL,
        finished_at timestamptz NOT NULL,
        verdict text NOT NULL,
        cause text,
        status integer,
        fault text,
        what text,
        milliseconds integer,
        counted boolean NOT NULL,
        applied boolean NOT NULL,
        token uuid NOT NULL,
        CONSTRAINT attempt_results_pkey PRIMARY KEY (report_id, number)
    )
    """,
    *(
        statement
        for table in ("attempts", "attempt_results")
        for statement in (
            f"CREATE TRIGGER {table}_rows BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION append_only()",
            f"CREATE TRIGGER {table}_whole BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION append_only()",
        )
    ),
    """
    CREATE TABLE lanes (
        supplier text PRIMARY KEY,
        state text NOT NULL DEFAULT 'open',
        changed_at timestamptz NOT NULL DEFAULT ledger_now(),
        parked_until timestamptz,
        asked_until timestamptz,
        park_step integer NOT NULL DEFAULT 0,
        failures integer NOT NULL DEFAULT 0,
        probe uuid,
        last_probe uuid,
        reason text,
        by text,
        attention text,
        next_start_at timestamptz NOT NULL DEFAULT to_timestamp(0),
        CONSTRAINT lanes_state_check CHECK (state IN ('open', 'parked', 'probing', 'paused')),
        CONSTRAINT lanes_probe_check CHECK ((state = 'probing') = (probe IS NOT NULL))
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
