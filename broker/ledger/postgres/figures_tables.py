"""The tables behind the console's figures as SQLAlchemy metadata (see tables.py)."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, Table, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB

from broker.ledger.postgres.dead_tables import dead_messages
from broker.ledger.postgres.tables import attempt_results, attempts, metadata, reports, requests


def _at(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


flow = Table(
    "flow",
    metadata,
    Column("minute", DateTime(timezone=True), primary_key=True, doc="in which they were counted"),
    Column("worker", Uuid, primary_key=True),
    Column("what", Text, primary_key=True, doc="request, answer, created, delivered or dead"),
    Column("label", Text, primary_key=True, doc="a request's type, an answer's status, or a supplier"),
    Column("count", BigInteger, nullable=False),
)

lane_changes = Table(
    "lane_changes",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _at("at"),
    Column("supplier", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("state", Text, nullable=False),
    _at("parked_until", nullable=True),
    Column("reason", Text),
    Column("by", Text),
    Column("attention", Text),
)
Index("lane_changes_supplier_idx", lane_changes.c.supplier, lane_changes.c.id)

last_looks = Table(
    "last_looks",
    metadata,
    Column("name", Text, primary_key=True, doc="of the check: conservation"),
    _at("at"),
    Column("figures", JSONB, nullable=False),
)


# The indexes that indexes.py builds.
Index(
    "reports_letters_idx",
    func.coalesce(reports.c.last_failed_at, reports.c.settled_at, reports.c.created_at),
    reports.c.report_id,
    postgresql_include=(
        *("supplier", "jobcenter_code", "type", "error_code", "cause", "cause_class", "fault", "attempts"),
        *("created_at", "first_failed_at", "last_failed_at", "settled_at"),
    ),
    postgresql_where=text("state = 'dead'"),
)
Index(
    "dead_messages_letters_idx",
    dead_messages.c.last_seen_at,
    dead_messages.c.letter_id,
    postgresql_include=(
        "queue",
        "cause",
        "cause_class",
        "type",
        "jobcenter_code",
        "attempts",
        "first_seen_at",
    ),
    postgresql_where=text("state IN ('open', 'replaying')"),
)
Index(
    "attempt_results_supplier_idx",
    attempt_results.c.supplier,
    attempt_results.c.finished_at,
    postgresql_include=("verdict", "milliseconds"),
    postgresql_where=text("supplier IS NOT NULL"),
)
for _column in (
    requests.c.settled_at,
    reports.c.settled_at,
    attempts.c.started_at,
    attempt_results.c.finished_at,
):
    Index(
        f"{_column.table.name}_{_column.name}_brin",
        _column,
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 32},
    )
