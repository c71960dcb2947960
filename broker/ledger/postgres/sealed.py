"""Translates between values in the clear and the columns of a row: sealing, tokens, and rows read back.

The only place that knows which columns are sealed and which token serves which purpose (docs/privacy.md#sealing,
#blind-index). No SQL runs here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from broker.ledger.model import Claim, ClaimRequest, RequestFacts, Settled, State, StoredAnswer
from broker.sealing import KeyMissing, Sealer, Token
from broker.telemetry.log import get_logger
from schemas.codes import Status
from schemas.personal import Cpr

log = get_logger("ledger.sealed")

SealedRow = Mapping[str, Any] | asyncpg.Record

FACTS = "request_id, type, jobcenter_code, planner, booking_system, supplier, state, corrected, settled_at"
ENDING = f"{FACTS}, status, answer, reason, error_code, last_sent_at, uncertain_since"
CLAIM = (
    "request_id, epoch, owner, type, jobcenter_code, planner, booking_system, supplier, deadline_at,"
    " dead_owners, traceparent, last_sent_at, uncertain_since, verify_tries"
)


def qualified(columns: str, table: str) -> str:
    """The same columns with the table's name in front, for statements over several tables."""
    return ", ".join(f"{table}.{name.strip()}" for name in columns.split(","))


class FieldSealer:
    """Seals and opens fields, each bound to the id of its request or report and to its own name."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    @property
    def turn_key(self) -> str:
        """The id of the key for turns: the oldest one, so that processes with old and new keys agree on a token."""
        return self._sealer.oldest_token_key

    def turn(self, cpr: Cpr) -> Token:
        """The token of the citizen's turn, the per-citizen lock (R9)."""
        return self._sealer.token(cpr.reveal().encode(), purpose="turn", key_id=self.turn_key)

    def citizen(self, cpr: Cpr, key_id: str | None = None) -> Token:
        """By the newest key, or by the key that a stored row names. Raises KeyMissing."""
        return self._sealer.token(cpr.reveal().encode(), purpose="citizen", key_id=key_id)

    def business(self, request: ClaimRequest, key_id: str | None = None) -> Token:
        """The token of type and business fields (R8)."""
        # With the type: an accept and a cancel of the same booking have equal fields.
        value = request.type.encode() + b"\0" + request.business
        return self._sealer.token(value, purpose="business", key_id=key_id)

    def merge(self, value: bytes) -> Token:
        """The token of equal failures, by the oldest key: processes with old and new keys agree on it."""
        return self._sealer.token(value, purpose="merge", key_id=self._sealer.oldest_token_key)

    def is_same(self, request: ClaimRequest, row: SealedRow) -> bool:
        """Whether the row was made by the same business fields (R8), compared under the key that the row names.

        False if that key is not configured any more.
        """
        try:
            token = self.business(request, row["business_key"])
        except KeyMissing as missing:
            log.error("token-key-missing", key_id=missing.key_id)
            return False
        return token.same(Token(row["business_key"], row["business_hmac"]))

    def seal(self, row_id: UUID, field: str, plain: bytes | None) -> bytes | None:
        return None if plain is None else self._sealer.seal(plain, of=str(row_id), field=field)

    def open(self, row_id: UUID, field: str, sealed: bytes) -> bytes:
        """Raises SealBroken."""
        return self._sealer.open(sealed, of=str(row_id), field=field)

    def settled(self, row: SealedRow) -> Settled:
        """From a row of the columns ENDING, with the answer opened. Raises SealBroken."""
        ending = StoredAnswer(
            status=Status(row["status"]),
            answer=self.open(row["request_id"], "answer", row["answer"]),
            reason=row["reason"],
            error_code=row["error_code"],
            last_sent_at=row["last_sent_at"],
        )
        return Settled(ending, facts_of(row))


def facts_of(row: SealedRow) -> RequestFacts:
    """From a row of the columns FACTS and `uncertain_since`."""
    # An uncertain request has no settled_at yet.
    settled_at: datetime = row["settled_at"] or row["uncertain_since"]
    return RequestFacts(
        type=row["type"],
        jobcenter_code=row["jobcenter_code"],
        planner=row["planner"],
        booking_system=row["booking_system"],
        supplier=row["supplier"],
        state=State(row["state"]),
        corrected=row["corrected"],
        settled_at=settled_at,
    )


def claim_of(row: SealedRow, *, taken_over: bool, message: bytes | None = None) -> Claim:
    """From a row of the columns CLAIM."""
    names = [name.strip() for name in CLAIM.split(",")]
    return Claim(taken_over=taken_over, message=message, **{name: row[name] for name in names})
