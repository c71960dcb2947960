"""Helpers of the ledger's tests: settings with short thresholds, claim requests, endings, rows."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from broker.ledger.ledger import Ledger
from broker.ledger.model import Claim, Claimed, ClaimRequest, StoredAnswer, TakenOver
from broker.sealing import Sealer
from config.settings import Settings, build
from schemas.codes import Status
from schemas.personal import Cpr
from tests.support import poll

Openers = Callable[..., Awaitable[Ledger]]
Sql = Any

THRESHOLD_S = 1.0
BEAT_S = 0.15
ANN, BEN = "0101364001", "0202354002"
# Sets the heartbeats of these workers back by hours, and makes all others long unbroken.
LIVES = """
UPDATE workers SET unbroken_since = clock_timestamp() - interval '9 hours',
    heartbeat_at = clock_timestamp() - CASE WHEN id = ANY($1::uuid[]) THEN interval '8h' ELSE interval '0' END
"""
_numbers = itertools.count(1)


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


def settings_for(dsn: str, *, tokens: Any = ("t1",), **ledger: Any) -> Settings:
    short = {
        "heartbeat_seconds": BEAT_S,
        "owner_dead_after_seconds": THRESHOLD_S,
        "statement_timeout_seconds": 2,
    }
    keys = {
        "sealing": {"s1": key(1)},
        "seal_with": "s1",
        "tokens": {name: key(10 + int(name[1:])) for name in tokens},
        "token_order": list(tokens),
    }
    return build(
        {
            "rabbitmq": {"url": "amqp://guest:guest@127.0.0.1/"},
            "ledger": short | {"dsn": dsn} | ledger,
            "keys": keys,
            "verification": {"every_seconds": 0.05},
        }
    )


def sealer_for(settings: Settings) -> Sealer:
    return Sealer(settings.keys)


def citizen() -> str:
    """A CPR number that no person has, a new one each time (birth dates of January 2030 to 2036)."""
    number = next(_numbers)
    day, year, serial = 1 + number % 28, 30 + number // 28 % 7, 4000 + number % 1000
    return f"{day:02}01{year:02}{serial:04}"


def ask(cpr: str | None = None, request_id: UUID | None = None, **changes: Any) -> ClaimRequest:
    """A booking with a deadline in half a minute, for a new citizen unless one is given."""
    cpr = cpr or citizen()
    fields: dict[str, Any] = {
        "request_id": request_id or uuid4(),
        "type": "booking.book.v1",
        "business": b'{"cpr":"%s","starttidspunkt":"2031-01-01T10:00Z"}' % cpr.encode(),
        "cpr": Cpr(cpr),
        "jobcenter_code": "10100",
        "planner": "north-planner",
        "booking_system": "north",
        "supplier": "nordsoft",
        "deadline_at": datetime.now(UTC) + timedelta(seconds=30),
        "message": b'{"cpr":"%s"}' % cpr.encode(),
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    return ClaimRequest(**fields | changes)


def ending(
    status: Status = Status.DONE, answer: bytes = b'{"status":"done"}', **changes: Any
) -> StoredAnswer:
    return StoredAnswer(status, answer, **changes)


def uncertain(**changes: Any) -> StoredAnswer:
    return StoredAnswer(Status.UNCERTAIN, b'{"status":"uncertain"}', **changes)


async def claimed(ledger: Ledger, wanted: ClaimRequest) -> Claim:
    """The claim on a new request."""
    outcome = await ledger.requests.claim(wanted)
    assert isinstance(outcome, Claimed), outcome
    return outcome.claim


async def left_uncertain(ledger: Ledger, wanted: ClaimRequest) -> None:
    assert await ledger.requests.settle(await claimed(ledger, wanted), uncertain())


def freeze(ledger: Ledger) -> None:
    """As after SIGSTOP: no heartbeat any more, while the claims stay in memory."""
    ledger._tasks[0].cancel()


async def taken_over(ledger: Ledger, wanted: ClaimRequest) -> Claim:
    """Claim until the owner counts as dead and the claim is taken over."""

    async def look() -> Any:
        outcome = await ledger.requests.claim(wanted)
        return outcome.claim if isinstance(outcome, TakenOver) else None

    claim: Claim = await poll(look, what="the owner's death")
    return claim


async def row(sql: Sql, request_id: UUID) -> Any:
    return await sql.fetchrow("SELECT * FROM requests WHERE request_id = $1", request_id)
