"""A request on its way into the ledger as a row: sealed, tokenised, and in the order of the insert's columns.

Done for each call by itself and outside any batch, so that what fails here fails for one caller. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from broker.ledger.model import ClaimRequest, State, StoredAnswer
from broker.ledger.postgres.sealed import FieldSealer
from broker.ledger.reports.new_reports import ReportEntry, report_entry
from schemas.codes import Status

COLUMNS = {
    "request_id": "uuid",
    "claim_token": "uuid",
    "type": "text",
    "family": "text",
    "jobcenter_code": "text",
    "planner": "text",
    "booking_system": "text",
    "supplier": "text",
    "state": "text",
    "owner": "uuid",
    "turn": "bytea",
    "turn_key": "text",
    "citizen_token": "bytea",
    "citizen_key": "text",
    "business_hmac": "bytea",
    "business_key": "text",
    "message": "bytea",
    "status": "text",
    "answer": "bytea",
    "reason": "text",
    "error_code": "integer",
    "traceparent": "text",
    "deadline_at": "timestamptz",
}
_arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(COLUMNS.values(), 1))

INSERT = f"""
INSERT INTO requests ({", ".join(COLUMNS)}, settled_at)
SELECT given.*, CASE WHEN given.state = 'settled' THEN clock_timestamp() END
FROM unnest({_arrays}) AS given ({", ".join(COLUMNS)})
ON CONFLICT DO NOTHING
RETURNING claim_token, settled_at
"""


@dataclass(frozen=True, slots=True)
class ClaimEntry:
    """One row that wants in; `ending` is set for a record."""

    ask: ClaimRequest
    token: UUID
    ending: StoredAnswer | None
    values: tuple[Any, ...]
    turn: bytes | None
    report: ReportEntry | None = None

    @property
    def order(self) -> tuple[bytes, bytes]:
        return self.turn or b"", self.ask.request_id.bytes


def entry_of(ask: ClaimRequest, ending: StoredAnswer | None, *, owner: UUID, safe: FieldSealer) -> ClaimEntry:
    """The row for a claim, or for a record if there is an ending. Raises ValueError for an uncertain record."""
    if ending is not None and ending.status is Status.UNCERTAIN:
        raise ValueError("only a claim can end uncertain")
    token, me = uuid4(), ask.request_id
    turn = safe.turn(ask.cpr) if ending is None and ask.turn else None
    citizen, business = safe.citizen(ask.cpr), safe.business(ask)
    values = {
        "request_id": me,
        "claim_token": token,
        "type": ask.type,
        "family": ask.type.partition(".")[0],
        "jobcenter_code": ask.jobcenter_code,
        "planner": ask.planner,
        "booking_system": ask.booking_system,
        "supplier": ask.supplier,
        "state": State.SETTLED.value if ending else State.RUNNING.value,
        "owner": owner,
        "turn": turn.digest if turn else None,
        "turn_key": turn.key_id if turn else None,
        "citizen_token": citizen.digest,
        "citizen_key": citizen.key_id,
        "business_hmac": business.digest,
        "business_key": business.key_id,
        "message": safe.seal(me, "message", ask.message),
        "status": ending.status.value if ending else None,
        "answer": safe.seal(me, "answer", ending.answer) if ending else None,
        "reason": ending.reason if ending else None,
        "error_code": ending.error_code if ending else None,
        "traceparent": ask.traceparent,
        "deadline_at": ask.deadline_at,
    }
    ordered = tuple(values[name] for name in COLUMNS)
    report = report_entry(ending.report, me, safe) if ending and ending.report else None
    return ClaimEntry(ask, token, ending, ordered, turn.digest if turn else None, report)
