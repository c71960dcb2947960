"""Between what callers say in the clear and what a row holds: seals, tokens, and rows read back.

The one place that knows which columns are sealed and which HMAC serves what. No SQL runs here.
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
    """The same columns with the table's name in front, for statements that read several tables."""
    return ", ".join(f"{table}.{name.strip()}" for name in columns.split(","))


class FieldSealer:
    """Seals and opens the fields of one request or report; `of` is always its id."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    @property
    def turn_key(self) -> str:
        """The key of the per-citizen hold: the oldest, so that old and new processes exclude each other."""
        return self._sealer.oldest_token_key

    def turn(self, cpr: Cpr) -> Token:
        return self._sealer.token(cpr.reveal().encode(), purpose="turn", key_id=self.turn_key)

    def citizen(self, cpr: Cpr, key_id: str | None = None) -> Token:
        """By the newest key, or by the one that a stored row names (KeyMissing if that is gone)."""
        return self._sealer.token(cpr.reveal().encode(), purpose="citizen", key_id=key_id)

    def citizen_tokens(self, cpr: Cpr) -> tuple[Token, ...]:
        """Every token under which this citizen's rows may be stored, newest key first."""
        return self._sealer.all_tokens(cpr.reveal().encode(), purpose="citizen")

    def business(self, ask: ClaimRequest, key_id: str | None = None) -> Token:
        """Of the type too: an accept and a cancel of the same booking have the same fields."""
        value = ask.type.encode() + b"\0" + ask.business
        return self._sealer.token(value, purpose="business", key_id=key_id)

    def merge(self, value: bytes) -> Token:
        """Of what makes failures equal; by the oldest key, so that old and new processes find each other's."""
        return self._sealer.token(value, purpose="merge", key_id=self._sealer.oldest_token_key)

    def is_same(self, ask: ClaimRequest, row: SealedRow) -> bool:
        """Rule 8, with the key that the row names. A key that is gone proves nothing, so it does not pass."""
        try:
            ours = self.business(ask, row["business_key"])
        except KeyMissing as missing:
            log.error("token-key-missing", key_id=missing.key_id)
            return False
        return ours.same(Token(row["business_key"], row["business_hmac"]))

    def seal(self, request_id: UUID, field: str, plain: bytes | None) -> bytes | None:
        return None if plain is None else self._sealer.seal(plain, of=str(request_id), field=field)

    def open(self, request_id: UUID, field: str, sealed: bytes) -> bytes:
        """Raises SealBroken."""
        return self._sealer.open(sealed, of=str(request_id), field=field)

    def settled(self, row: SealedRow) -> Settled:
        """A row of the columns ENDING, its answer opened. Raises SealBroken."""
        ending = StoredAnswer(
            status=Status(row["status"]),
            answer=self.open(row["request_id"], "answer", row["answer"]),
            reason=row["reason"],
            error_code=row["error_code"],
            last_sent_at=row["last_sent_at"],
        )
        return Settled(ending, facts_of(row))


def facts_of(row: SealedRow) -> RequestFacts:
    """An uncertain request has no settled_at; it has been what it is since uncertain_since."""
    at: datetime = row["settled_at"] or row["uncertain_since"]
    return RequestFacts(
        type=row["type"],
        jobcenter_code=row["jobcenter_code"],
        planner=row["planner"],
        booking_system=row["booking_system"],
        supplier=row["supplier"],
        state=State(row["state"]),
        corrected=row["corrected"],
        settled_at=at,
    )


def claim_of(row: SealedRow, *, taken_over: bool, message: bytes | None = None) -> Claim:
    """A row of the columns CLAIM."""
    names = [name.strip() for name in CLAIM.split(",")]
    return Claim(taken_over=taken_over, message=message, **{name: row[name] for name in names})
