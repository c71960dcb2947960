"""Workers and requests: the ledger's first tables."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    CREATE TABLE workers (
        id uuid PRIMARY KEY,
        pid integer NOT NULL,
        started_at timestamptz NOT NULL,
        heartbeat_at timestamptz NOT NULL,
        unbroken_since timestamptz NOT NULL,
        ready boolean NOT NULL,
        stopped_at timestamptz
    )
    """,
    """
    CREATE TABLE requests (
        request_id uuid PRIMARY KEY,
        type text NOT NULL,
        family text NOT NULL,
        jobcenter_code text NOT NULL,
        planner text NOT NULL,
        booking_system text NOT NULL,
        supplier text NOT NULL,
        state text NOT NULL,
        owner uuid,
        epoch bigint NOT NULL DEFAULT 1,
        claim_token uuid,
        settle_token uuid,
        dead_owners integer NOT NULL DEFAULT 0,
        turn bytea,
        turn_key text,
        citizen_token bytea NOT NULL,
        citizen_key text NOT NULL,
        business_hmac bytea NOT NULL,
        business_key text NOT NULL,
        message bytea NOT NULL,
        answer bytea,
        status text,
        reason text,
        error_code integer,
        traceparent text,
        deadline_at timestamptz NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        settled_at timestamptz,
        last_sent_at timestamptz,
        uncertain_since timestamptz,
        verify_due_at timestamptz,
        verify_tries integer NOT NULL DEFAULT 0,
        event_due_at timestamptz,
        corrected boolean NOT NULL DEFAULT false,
        CONSTRAINT requests_turn_key UNIQUE (turn),
        CONSTRAINT requests_state_check CHECK (state IN ('running', 'settled', 'uncertain', 'unverified')),
        CONSTRAINT requests_turn_only_while_open_check
            CHECK (turn IS NULL OR state IN ('running', 'uncertain')),
        CONSTRAINT requests_answered_check CHECK (state = 'running' OR answer IS NOT NULL)
    )
    """,
    "CREATE INDEX requests_citizen_idx ON requests (citizen_token)",
    "CREATE INDEX requests_running_idx ON requests (deadline_at) WHERE state = 'running'",
    "CREATE INDEX requests_verify_due_idx ON requests (verify_due_at) WHERE state = 'uncertain'",
    "CREATE INDEX requests_event_due_idx ON requests (event_due_at) WHERE event_due_at IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
