"""The tables of the ledger as SQLAlchemy metadata: what migrations are compared with, and what columns mean.

The running broker speaks SQL through asyncpg (see claims.py and its neighbours); nothing here opens a
connection.
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
    """A point in time by PostgreSQL's clock; processes' clocks are never compared with each other."""
    at = text("clock_timestamp()") if default else None
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=at)


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
        "epoch", BigInteger, nullable=False, server_default=text("1"), doc="one more with every new owner"
    ),
    Column("claim_token", Uuid, doc="of the call that claimed it: a commit of unknown fate is recognised"),
    Column("settle_token", Uuid, doc="of the call that settled it, for the same reason"),
    Column("dead_owners", Integer, nullable=False, server_default=text("0")),
    Column("turn", LargeBinary, doc="HMAC of the CPR number while the citizen's turn is held"),
    Column("turn_key", Text, doc="key id of turn"),
    Column("citizen_token", LargeBinary, nullable=False, doc="HMAC of the CPR number, for finding"),
    Column("citizen_key", Text, nullable=False),
    Column("business_hmac", LargeBinary, nullable=False, doc="HMAC of type and business fields (rule 8)"),
    Column("business_key", Text, nullable=False),
    Column("message", LargeBinary, nullable=False, doc="sealed"),
    Column("answer", LargeBinary, doc="sealed"),
    Column("status", Text),
    Column("reason", Text),
    Column("error_code", Integer),
    Column("failure", LargeBinary, doc="sealed: what a report to the supplier needs"),
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
