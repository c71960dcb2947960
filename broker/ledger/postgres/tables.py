"""The tables of the ledger as SQLAlchemy metadata: the meaning of the columns, and a test's check of the migrations.

The broker itself sends SQL through asyncpg (see requests/claims.py); nothing here opens a connection.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

metadata = MetaData()


def _moment(name: str, *, nullable: bool = True, default: bool = False) -> Column[object]:
    """A point in time by PostgreSQL's clock; the clocks of different processes are never compared."""
    at = text("clock_timestamp()") if default else None
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=at)


def _count(name: str, doc: str | None = None) -> Column[object]:
    return Column(name, Integer, nullable=False, server_default=text("0"), doc=doc)


workers = Table(
    "workers",
    metadata,
    Column("id", Uuid, primary_key=True, doc="one start of one broker process"),
    Column("pid", Integer, nullable=False),
    _moment("started_at", nullable=False),
    _moment("heartbeat_at", nullable=False),
    _moment("unbroken_since", nullable=False),
    Column("ready", Boolean, nullable=False),
    _moment("stopped_at"),
    Column("host", Text),
    Column("expected", Integer, doc="consumers that it should have"),
    Column("consuming", Integer, doc="consumers that it has"),
    Column("problem", Text, doc="why it handles no messages now, in words"),
)

requests = Table(
    "requests",
    metadata,
    Column("request_id", Uuid, primary_key=True),
    Column("type", Text, nullable=False),
    Column("family", Text, nullable=False),
    Column("jobcenter_code", Text, nullable=False),
    Column("planner", Text, nullable=False),
    Column("booking_system", Text, nullable=False),
    Column("supplier", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("owner", Uuid, doc="the worker that runs it, verifies it, or settled it"),
    Column(
        "epoch",
        BigInteger,
        nullable=False,
        server_default=text("1"),
        doc="fencing token: incremented for every new owner",
    ),
    Column(
        "claim_token", Uuid, doc="of the call that claimed it: tells whether an interrupted COMMIT was made"
    ),
    Column("settle_token", Uuid, doc="of the call that settled it, for the same reason"),
    Column("dead_owners", Integer, nullable=False, server_default=text("0")),
    Column("turn", LargeBinary, doc="HMAC of the CPR number while the request holds the citizen's turn"),
    Column("turn_key", Text, doc="key id of turn"),
    Column("citizen_token", LargeBinary, nullable=False, doc="HMAC of the CPR number, for finding"),
    Column("citizen_key", Text, nullable=False),
    Column("business_hmac", LargeBinary, nullable=False, doc="HMAC of type and business fields (R8)"),
    Column("business_key", Text, nullable=False),
    Column("message", LargeBinary, nullable=False, doc="sealed"),
    Column("answer", LargeBinary, doc="sealed"),
    Column("status", Text),
    Column("reason", Text),
    Column("error_code", Integer),
    Column("traceparent", Text),
    _moment("deadline_at", nullable=False),
    _moment("created_at", nullable=False, default=True),
    _moment("settled_at"),
    _moment("last_sent_at"),
    _moment("uncertain_since"),
    _moment("verify_due_at"),
    Column("verify_tries", Integer, nullable=False, server_default=text("0")),
    _moment("event_due_at"),
    Column("corrected", Boolean, nullable=False, server_default=text("false")),
    Column("report_id", Uuid, doc="the report on its failure: its own, or the one it was merged into"),
    UniqueConstraint("turn", name="requests_turn_key"),
    CheckConstraint(
        "state IN ('running', 'settled', 'uncertain', 'unverified')", name="requests_state_check"
    ),
    CheckConstraint(
        "turn IS NULL OR state IN ('running', 'uncertain')", name="requests_turn_only_while_open_check"
    ),
    CheckConstraint("state = 'running' OR answer IS NOT NULL", name="requests_answered_check"),
)

Index("requests_citizen_idx", requests.c.citizen_token)
Index("requests_running_idx", requests.c.deadline_at, postgresql_where=text("state = 'running'"))
Index("requests_verify_due_idx", requests.c.verify_due_at, postgresql_where=text("state = 'uncertain'"))
Index("requests_event_due_idx", requests.c.event_due_at, postgresql_where=text("event_due_at IS NOT NULL"))

reports = Table(
    "reports",
    metadata,
    Column("report_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("request_id", Uuid, doc="the request that failed, if one is known"),
    Column("supplier", Text, doc="NULL while the directory does not know the jobcenter (dead `unroutable`)"),
    Column("jobcenter_code", Text, nullable=False),
    Column("type", Text, doc="of the request that failed"),
    Column("error_code", Integer, nullable=False),
    _moment("occurred_at", nullable=False),
    Column("content", LargeBinary, nullable=False, doc="sealed"),
    Column("citizen_token", LargeBinary, nullable=False, doc="HMAC of the CPR number, for finding"),
    Column("citizen_key", Text, nullable=False),
    Column("merge_token", LargeBinary, doc="HMAC of the fields in which merged failures are equal"),
    Column("merge_key", Text),
    Column(
        "count",
        Integer,
        nullable=False,
        server_default=text("1"),
        doc="equal failures that were merged into it",
    ),
    Column("traceparent", Text),
    Column("state", Text, nullable=False),
    _moment("due_at", nullable=False),
    Column("joins", Uuid, doc="the failed request that a citizen's report waits for"),
    Column("number", BigInteger, nullable=False, server_default=text("0"), doc="of the last hand-over"),
    _moment("handed_at"),
    Column("owner", Uuid, doc="the worker that delivers it, or delivered it last"),
    Column("epoch", BigInteger, nullable=False, server_default=text("0")),
    Column(
        "claim_token", Uuid, doc="of the call that claimed it: tells whether an interrupted COMMIT was made"
    ),
    _count("attempts", "since it was made, replays included"),
    _count("try_key", "incremented for each new x-requestId; kept while an attempt is unanswered"),
    Column("unanswered", Boolean, nullable=False, server_default=text("false")),
    _count("retries", "counted failures since the last replay"),
    _count("crashes"),
    _count("bugs"),
    Column(
        "duplicate",
        Boolean,
        nullable=False,
        server_default=text("false"),
        doc="delivered: the supplier already had it",
    ),
    Column("cause", Text, doc="of the last failure"),
    Column("cause_class", Text, doc="message, moment, setup or ours"),
    Column("fault", Text, doc="type of the contract's fault"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("ledger_now()")),
    Column("last_seen_at", DateTime(timezone=True), nullable=False, server_default=text("ledger_now()")),
    _moment("first_failed_at"),
    _moment("last_failed_at"),
    _moment("settled_at"),
    _moment("discarded_at"),
    _moment("event_due_at"),
    CheckConstraint("kind IN ('automatic', 'citizen')", name="reports_kind_check"),
    CheckConstraint(
        "state IN ('joining', 'waiting', 'handed', 'delivering', 'delivered', 'dead', 'discarded')",
        name="reports_state_check",
    ),
    CheckConstraint("supplier IS NOT NULL OR state IN ('dead', 'discarded')", name="reports_routed_check"),
    CheckConstraint("state <> 'delivering' OR owner IS NOT NULL", name="reports_owned_check"),
    CheckConstraint(
        "state NOT IN ('delivered', 'dead', 'discarded') OR settled_at IS NOT NULL",
        name="reports_settled_check",
    ),
)


Index("reports_due_idx", reports.c.supplier, reports.c.due_at, postgresql_where=text("state = 'waiting'"))
Index(
    "reports_handed_idx",
    reports.c.supplier,
    reports.c.state,
    postgresql_where=text("state IN ('handed', 'delivering')"),
)
Index("reports_joining_idx", reports.c.due_at, postgresql_where=text("state = 'joining'"))
Index("reports_event_due_idx", reports.c.event_due_at, postgresql_where=text("event_due_at IS NOT NULL"))
Index(
    "reports_merge_idx",
    reports.c.merge_token,
    reports.c.created_at,
    postgresql_where=text("merge_token IS NOT NULL"),
)
Index("reports_request_idx", reports.c.request_id)
Index("reports_joins_idx", reports.c.joins, postgresql_where=text("joins IS NOT NULL"))
Index("reports_citizen_idx", reports.c.citizen_token)
Index("reports_created_idx", reports.c.created_at)

attempts = Table(
    "attempts",
    metadata,
    Column("report_id", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False, doc="counts the report's attempts"),
    Column("owner", Uuid, nullable=False),
    _moment("started_at", nullable=False),
    Column("x_request_id", Text, nullable=False),
    Column("probe", Boolean, nullable=False),
)

attempt_results = Table(
    "attempt_results",
    metadata,
    Column("report_id", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False, doc="of the attempt"),
    _moment("finished_at", nullable=False),
    Column("verdict", Text, nullable=False, doc="delivered, later, dead or kept"),
    Column("cause", Text),
    Column("status", Integer),
    Column("fault", Text),
    Column("what", Text),
    Column("milliseconds", Integer),
    Column("counted", Boolean, nullable=False),
    Column("applied", Boolean, nullable=False, doc="false: another process had taken the report over"),
    Column("token", Uuid, nullable=False, doc="of the call that finished it"),
    Column("supplier", Text, doc="the supplier that was called; NULL in rows from before 0004"),
)

lanes = Table(
    "lanes",
    metadata,
    Column("supplier", Text, primary_key=True),
    Column("state", Text, nullable=False, server_default=text("'open'")),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=text("ledger_now()")),
    _moment("parked_until"),
    _moment("asked_until"),
    _count("park_step"),
    _count("failures"),
    Column("probe", Uuid),
    Column("last_probe", Uuid),
    Column("reason", Text),
    Column("by", Text),
    Column("attention", Text),
    Column(
        "next_start_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=text("to_timestamp(0)"),
        doc="the rate shared by all processes: no hand-over before this",
    ),
    CheckConstraint("state IN ('open', 'parked', 'probing', 'paused')", name="lanes_state_check"),
    CheckConstraint("(state = 'probing') = (probe IS NOT NULL)", name="lanes_probe_check"),
)
