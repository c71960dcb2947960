"""What was promised, what is due when, and how it ended: the broker's memory in PostgreSQL (DESIGN 7)."""

from broker.ledger import dead_tables  # makes its tables part of the metadata
from broker.ledger.ledger import Ledger
from broker.ledger.model import (
    Ask,
    Busy,
    Claim,
    Conflict,
    DueEvent,
    Ending,
    Facts,
    LedgerMisfit,
    New,
    Outcome,
    RowRefused,
    Running,
    Settled,
    State,
    Story,
    TakenOver,
    WorkerRow,
)
from broker.ledger.versions import bring_up_to_date, upgrade

__all__ = [
    "Ask",
    "Busy",
    "Claim",
    "Conflict",
    "DueEvent",
    "Ending",
    "Facts",
    "Ledger",
    "LedgerMisfit",
    "New",
    "Outcome",
    "RowRefused",
    "Running",
    "Settled",
    "State",
    "Story",
    "TakenOver",
    "WorkerRow",
    "bring_up_to_date",
    "dead_tables",
    "upgrade",
]
