"""The tables of dead letters, replays and the operators' log as SQLAlchemy metadata (see tables.py).

The views `letters` and `discarded_letters` over them are in migrations 0003 and 0004.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from broker.ledger.postgres.tables import metadata, reports, requests


def _at(name: str, *, now: bool = False) -> Column[object]:
    default = text("ledger_now()") if now else None
    return Column(name, DateTime(timezone=True), nullable=not now, server_default=default)


dead_messages = Table(
    "dead_messages",
    metadata,
    Column("letter_id", Uuid, primary_key=True),
    Column(
        "source_id", Uuid, nullable=False, doc="of the message that was taken in last; each is taken in once"
    ),
    Column("state", Text, nullable=False, server_default=text("'open'")),
    Column("queue", Text, nullable=False, doc="the dead-letter queue it lies in"),
    Column("cause", Text, nullable=False),
    Column("cause_class", Text, nullable=False),
    Column("type", Text),
    Column("fields", Text, doc="names of the invalid fields"),
    Column("request_id", Uuid),
    Column("jobcenter_code", Text),
    Column("citizen_token", LargeBinary, doc="HMAC of the CPR number if one could be read, for finding"),
    Column("citizen_key", Text),
    Column("body", LargeBinary, doc="sealed; NULL after retention"),
    Column("properties", LargeBinary, doc="sealed; NULL when they were not kept"),
    Column("same_key", Text, nullable=False),
    Column(
        "same_token",
        LargeBinary,
        nullable=False,
        doc="HMAC of queue and body: tells a replay that comes back",
    ),
    Column("attempts", Integer, nullable=False, server_default=text("1")),
    _at("first_seen_at", now=True),
    _at("last_seen_at", now=True),
    _at("changed_at", now=True),
    UniqueConstraint("source_id", name="dead_messages_source_key"),
    CheckConstraint(
        "state IN ('open', 'replaying', 'replayed', 'discarded')", name="dead_messages_state_check"
    ),
)

discarded_bookings = Table(
    "discarded_bookings",
    metadata,
    Column("request_id", Uuid, primary_key=True),
    _at("discarded_at", now=True),
)

dead_queues = Table(
    "dead_queues",
    metadata,
    Column("queue", Text, primary_key=True),
    Column(
        "pass", BigInteger, nullable=False, server_default=text("0"), doc="incremented by each reconciliation"
    ),
    Column(
        "turning",
        Boolean,
        nullable=False,
        server_default=text("false"),
        doc="a reconciliation has begun and not ended",
    ),
    _at("turned_at"),
)

dead_places = Table(
    "dead_places",
    metadata,
    Column("queue", Text, primary_key=True),
    Column(
        "letter_id",
        Uuid,
        primary_key=True,
        doc="a dead letter of the ledger that lies in the queue, as last seen",
    ),
    Column("pass", BigInteger, nullable=False, doc="the last reconciliation that saw it"),
)

replays = Table(
    "replays",
    metadata,
    Column("replay_id", Uuid, primary_key=True),
    Column("name", Text, nullable=False, doc="the letters that were asked for, in words"),
    Column("state", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("rate", Double, nullable=False, doc="letters a second after the canary"),
    Column("canary", Uuid),
    _at("canary_at"),
    Column("stopped_because", Text),
    _at("created_at", now=True),
    _at("advanced_at", now=True),
    _at("ended_at"),
    CheckConstraint(
        "state IN ('prepared', 'canary', 'running', 'stopped', 'done')", name="replays_state_check"
    ),
)

replay_items = Table(
    "replay_items",
    metadata,
    Column("replay_id", Uuid, ForeignKey("replays.replay_id", ondelete="CASCADE"), primary_key=True),
    Column("letter_id", Uuid, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'waiting'")),
    Column("note", Text),
    _at("replayed_at"),
    CheckConstraint("state IN ('waiting', 'taken', 'replayed', 'skipped')", name="replay_items_state_check"),
)

operator_log = Table(
    "operator_log",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _at("at", now=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),
    Column("citizen_token", LargeBinary),
    Column("citizen_key", Text),
    CheckConstraint("actor <> '' AND reason <> ''", name="operator_log_named_check"),
)


def _index(name: str, *columns: Column[object], where: str | None = None) -> None:
    Index(name, *columns, postgresql_where=text(where) if where else None)


_message, _item, _entry = dead_messages.c, replay_items.c, operator_log.c
_index(
    "dead_messages_open_idx", _message.queue, _message.last_seen_at, where="state IN ('open', 'replaying')"
)
_index("dead_messages_discarded_idx", _message.last_seen_at, where="state = 'discarded'")
_index("dead_messages_same_idx", _message.same_token)
_index("dead_messages_request_idx", _message.request_id, where="request_id IS NOT NULL")
_index("dead_messages_citizen_idx", _message.citizen_token, where="citizen_token IS NOT NULL")
_index("reports_dead_idx", reports.c.last_failed_at, where="state = 'dead'")
_index("reports_discarded_idx", reports.c.discarded_at, where="state = 'discarded'")
_index("requests_unverified_idx", requests.c.settled_at, where="state = 'unverified'")
_index("replays_going_idx", replays.c.advanced_at, where="state IN ('canary', 'running')")
_index("replay_items_waiting_idx", _item.replay_id, _item.position, where="state IN ('waiting', 'taken')")
_index("replay_items_letter_idx", _item.letter_id)
_index("operator_log_subject_idx", _entry.subject)
_index("operator_log_citizen_idx", _entry.citizen_token, where="citizen_token IS NOT NULL")
