"""A request as a row of the insert: sealed, tokenised, in the order of the columns. No I/O.

Made for each call by itself, outside any batch, so that an error here fails one caller only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from broker.ledger.model import ClaimRequest, State, StoredAnswer
from broker.ledger.postgres.columns import unnested
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

INSERT = f"""
INSERT INTO requests ({", ".join(COLUMNS)}, settled_at)
SELECT given.*, CASE WHEN given.state = 'settled' THEN clock_timestamp() END
FROM {unnested(COLUMNS)}
ON CONFLICT DO NOTHING
RETURNING claim_token, settled_at
"""


@dataclass(frozen=True, slots=True)
class ClaimEntry:
    """One row to insert; `ending` is set for a record, which is settled at once."""

    request: ClaimRequest
    token: UUID
    ending: StoredAnswer | None
    values: tuple[Any, ...]
    turn: bytes | None
    report: ReportEntry | None = None

    @property
    def order(self) -> tuple[bytes, bytes]:
        return self.turn or b"", self.request.request_id.bytes


def entry_of(
    request: ClaimRequest, ending: StoredAnswer | None, *, owner: UUID, sealer: FieldSealer
) -> ClaimEntry:
    """The row for a claim, or for a record if there is an ending. Raises ValueError for an uncertain record."""
    if ending is not None and ending.status is Status.UNCERTAIN:
        raise ValueError("only a claim can end uncertain")
    token, request_id = uuid4(), request.request_id
    turn = sealer.turn(request.cpr) if ending is None and request.turn else None
    citizen, business = sealer.citizen(request.cpr), sealer.business(request)
    values = {
        "request_id": request_id,
        "claim_token": token,
        "type": request.type,
        "family": request.type.partition(".")[0],
        "jobcenter_code": request.jobcenter_code,
        "planner": request.planner,
        "booking_system": request.booking_system,
        "supplier": request.supplier,
        "state": State.SETTLED.value if ending else State.RUNNING.value,
        "owner": owner,
        "turn": turn.digest if turn else None,
        "turn_key": turn.key_id if turn else None,
        "citizen_token": citizen.digest,
        "citizen_key": citizen.key_id,
        "business_hmac": business.digest,
        "business_key": business.key_id,
        "message": sealer.seal(request_id, "message", request.message),
        "status": ending.status.value if ending else None,
        "answer": sealer.seal(request_id, "answer", ending.answer) if ending else None,
        "reason": ending.reason if ending else None,
        "error_code": ending.error_code if ending else None,
        "traceparent": request.traceparent,
        "deadline_at": request.deadline_at,
    }
    ordered = tuple(values[name] for name in COLUMNS)
    report = report_entry(ending.report, request_id, sealer) if ending and ending.report else None
    return ClaimEntry(request, token, ending, ordered, turn.digest if turn else None, report)
