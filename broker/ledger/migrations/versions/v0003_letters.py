"""Dead letters as views over dead rows and messages taken in from RabbitMQ; replays; the operators' log.

The indexes on requests and reports, which are living tables, are in postgres/indexes.py.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

FINGERPRINT = "left(md5(concat_ws('|', {supplier}, {cause}, coalesce({fault}, ''))), 12)"

REPORTS = """
    SELECT report_id AS letter_id, 'report' AS kind,
        CASE WHEN coalesce(supplier, '') = '' THEN 'jobnet.citizen-reports.dead'
             ELSE 'jobnet.reports.' || supplier || '.dead' END AS queue,
        coalesce(cause, 'unknown') AS cause, coalesce(cause_class, 'ours') AS cause_class,
        {fingerprint} AS fingerprint, fault, coalesce(supplier, '') AS supplier, jobcenter_code, type,
        error_code, attempts, coalesce(first_failed_at, created_at) AS first_seen_at,
        coalesce(last_failed_at, settled_at, created_at) AS last_seen_at
    FROM reports WHERE state = '{state}'
"""

BOOKINGS = """
    SELECT request_id, 'booking', 'jobnet.bookings.dead', 'unverified', 'moment', {fingerprint},
        NULL, supplier, jobcenter_code, type, error_code, verify_tries,
        coalesce(uncertain_since, created_at), coalesce(settled_at, created_at)
    FROM requests WHERE state = 'unverified'
        AND {no}EXISTS (SELECT FROM discarded_bookings AS d WHERE d.request_id = requests.request_id)
"""

MESSAGES = """
    SELECT letter_id, 'message', queue, cause, cause_class, {fingerprint},
        NULL, '', jobcenter_code, type, NULL::integer, attempts, first_seen_at, last_seen_at
    FROM dead_messages WHERE state IN ({states})
"""


def _view(name: str, report_state: str, no: str, message_states: str) -> str:
    def print_of(supplier: str, cause: str, fault: str) -> str:
        return FINGERPRINT.format(supplier=supplier, cause=cause, fault=fault)

    reports = REPORTS.format(
        state=report_state,
        fingerprint=print_of("coalesce(supplier, '')", "coalesce(cause, 'unknown')", "fault"),
    )
    bookings = BOOKINGS.format(no=no, fingerprint=print_of("supplier", "'unverified'", "''"))
    messages = MESSAGES.format(states=message_states, fingerprint=print_of("queue", "cause", "type"))
    return f"CREATE VIEW {name} AS {reports} UNION ALL {bookings} UNION ALL {messages}"


STATEMENTS = (
    """
    CREATE TABLE dead_messages (
        letter_id uuid PRIMARY KEY,
        source_id uuid NOT NULL,
        state text NOT NULL DEFAULT 'open',
        queue text NOT NULL,
        cause text NOT NULL,
        cause_class text NOT NULL,
        type text,
        fields text,
        request_id uuid,
        jobcenter_code text,
        citizen_token bytea,
        citizen_key text,
        body bytea,
        properties bytea,
        same_key text NOT NULL,
        same_token bytea NOT NULL,
        attempts integer NOT NULL DEFAULT 1,
        first_seen_at timestamptz NOT NULL DEFAULT ledger_now(),
        last_seen_at timestamptz NOT NULL DEFAULT ledger_now(),
        changed_at timestamptz NOT NULL DEFAULT ledger_now(),
        CONSTRAINT dead_messages_source_key UNIQUE (source_id),
        CONSTRAINT dead_messages_state_check CHECK (state IN ('open', 'replaying', 'replayed', 'discarded'))
    )
    """,
    "CREATE INDEX dead_messages_open_idx ON dead_messages (queue, last_seen_at) WHERE state IN ('open', 'replaying')",
    "CREATE INDEX dead_messages_discarded_idx ON dead_messages (last_seen_at) WHERE state = 'discarded'",
    "CREATE INDEX dead_messages_same_idx ON dead_messages (same_token)",
    "CREATE INDEX dead_messages_request_idx ON dead_messages (request_id) WHERE request_id IS NOT NULL",
    "CREATE INDEX dead_messages_citizen_idx ON dead_messages (citizen_token) WHERE citizen_token IS NOT NULL",
    """
    CREATE TABLE discarded_bookings (
        request_id uuid PRIMARY KEY,
        discarded_at timestamptz NOT NULL DEFAULT ledger_now()
    )
    """,
    _view("letters", "dead", "NOT ", "'open', 'replaying'"),
    _view("discarded_letters", "discarded", "", "'discarded'"),
    """
    CREATE TABLE dead_queues (
        queue text PRIMARY KEY,
        pass bigint NOT NULL DEFAULT 0,
        turning boolean NOT NULL DEFAULT false,
        turned_at timestamptz
    )
    """,
    """
    CREATE TABLE dead_places (
        queue text NOT NULL,
        letter_id uuid NOT NULL,
        pass bigint NOT NULL,
        PRIMARY KEY (queue, letter_id)
    )
    """,
    """
    CREATE TABLE replays (
        replay_id uuid PRIMARY KEY,
        name text NOT NULL,
        state text NOT NULL,
        actor text NOT NULL,
        reason text NOT NULL,
        rate double precision NOT NULL,
        canary uuid,
        canary_at timestamptz,
        stopped_because text,
        created_at timestamptz NOT NULL DEFAULT ledger_now(),
        advanced_at timestamptz NOT NULL DEFAULT ledger_now(),
        ended_at timestamptz,
        CONSTRAINT replays_state_check CHECK (state IN ('prepared', 'canary', 'running', 'stopped', 'done'))
    )
    """,
    "CREATE INDEX replays_going_idx ON replays (advanced_at) WHERE state IN ('canary', 'running')",
    """
    CREATE TABLE replay_items (
        replay_id uuid NOT NULL REFERENCES replays ON DELETE CASCADE,
        letter_id uuid NOT NULL,
        position integer NOT NULL,
        kind text NOT NULL,
        fingerprint text NOT NULL,
        state text NOT NULL DEFAULT 'waiting',
        note text,
        replayed_at timestamptz,
        PRIMARY KEY (replay_id, letter_id),
        CONSTRAINT replay_items_state_check CHECK (state IN ('waiting', 'taken', 'replayed', 'skipped'))
    )
    """,
    "CREATE INDEX replay_items_waiting_idx ON replay_items (replay_id, position) WHERE state IN ('waiting', 'taken')",
    "CREATE INDEX replay_items_letter_idx ON replay_items (letter_id)",
    """
    CREATE TABLE operator_log (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT ledger_now(),
        actor text NOT NULL,
        action text NOT NULL,
        reason text NOT NULL,
        subject text NOT NULL,
        details jsonb NOT NULL DEFAULT '{}',
        citizen_token bytea,
        citizen_key text,
        CONSTRAINT operator_log_named_check CHECK (actor <> '' AND reason <> '')
    )
    """,
    "CREATE INDEX operator_log_subject_idx ON operator_log (subject)",
    "CREATE INDEX operator_log_citizen_idx ON operator_log (citizen_token) WHERE citizen_token IS NOT NULL",
    # append_only() from 0002 allows no UPDATE, and DELETE only to retention.
    """
    CREATE TRIGGER operator_log_rows BEFORE UPDATE OR DELETE ON operator_log
        FOR EACH ROW EXECUTE FUNCTION append_only()
    """,
    """
    CREATE TRIGGER operator_log_whole BEFORE TRUNCATE ON operator_log
        FOR EACH STATEMENT EXECUTE FUNCTION append_only()
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
