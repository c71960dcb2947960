"""One attempt at a report: claimed with its intent written down, finished with its result (DESIGN 6).

Both are conditional (number, then owner and epoch) and both wait while PostgreSQL is away: what happened at the
supplier happened, and failing to write it down never repeats it. A commit of unknown fate is recognised by
its own token. Calls nobody and judges nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from broker.delivery_policy import x_request_id
from broker.errors import LedgerAway, Seen
from broker.lanes import LaneRules, after
from broker.ledger.batches import PASSING_TRIES
from broker.ledger.lanes import LOCKED, Standing, learn, look
from broker.ledger.lines import Connection, Lines
from broker.ledger.model import RowRefused
from broker.ledger.reach import Reach
from broker.ledger.report_model import ReportClaim, ReportState
from broker.ledger.sealed import Row, Safe
from broker.log import get_logger
from broker.sealing import SealBroken
from broker.verdicts import Dead, Delivered, Judgement, Kept, Later, Tries, Verdict
from schemas.codes import ReportKind

log = get_logger("ledger.deliveries")

T = TypeVar("T")

CLAIMED = (
    "report_id, epoch, owner, supplier, attempts, try_key, retries, crashes, bugs, unanswered, count, kind,"
    " request_id, jobcenter_code, traceparent, content"
)

# Most are delivered at the first attempt, and those have not been looked for.
REPLAYED = """CASE WHEN attempts > 1 THEN EXISTS (
    SELECT FROM replay_items AS i WHERE i.letter_id = reports.report_id AND i.state = 'replayed')
    ELSE false END AS replayed"""

CLAIM = f"""
UPDATE reports SET state = 'delivering', owner = $3, epoch = epoch + 1, claim_token = $4,
    attempts = attempts + 1, try_key = try_key + CASE WHEN unanswered THEN 0 ELSE 1 END
WHERE report_id = $1 AND number = $2 AND state = 'handed'
RETURNING {CLAIMED}, {REPLAYED}, coalesce(
    (SELECT probe = report_id FROM lanes WHERE lanes.supplier = reports.supplier), false) AS probe
"""  # noqa: S608  built from constants only

RECOGNISE = f"""
SELECT {CLAIMED}, {REPLAYED}, (SELECT probe FROM attempts AS a
                   WHERE a.report_id = reports.report_id AND a.number = reports.attempts) AS probe
FROM reports WHERE report_id = $1 AND claim_token = $2 AND state = 'delivering'
"""  # noqa: S608  built from constants only

INTENT = "INSERT INTO attempts VALUES ($1, $2, $3, ledger_now(), $4, $5)"

# Taken back whole: no attempt was made at what nobody can read.
UNREADABLE = """
UPDATE reports SET state = 'dead', cause = 'seal-broken', cause_class = 'ours', fault = NULL, owner = NULL,
    attempts = attempts - 1, handed_at = NULL, first_failed_at = coalesce(first_failed_at, now.at),
    last_failed_at = now.at, settled_at = now.at, event_due_at = now.at
FROM (SELECT ledger_now() AS at) AS now WHERE report_id = $1
"""

FINISH = """
UPDATE reports SET state = $4, owner = NULL, handed_at = NULL, due_at = now.at + $5::interval,
    retries = $6, crashes = $7, bugs = $8, unanswered = $9, duplicate = $10,
    cause = $11, cause_class = $12, fault = $13,
    first_failed_at = CASE $4 WHEN 'delivered' THEN first_failed_at ELSE coalesce(first_failed_at, now.at) END,
    last_failed_at = CASE $4 WHEN 'delivered' THEN last_failed_at ELSE now.at END,
    settled_at = CASE $4 WHEN 'waiting' THEN NULL ELSE now.at END,
    event_due_at = CASE $4 WHEN 'waiting' THEN NULL ELSE now.at END
FROM (SELECT ledger_now() AS at) AS now
WHERE report_id = $1 AND owner = $2 AND epoch = $3 AND state = 'delivering'
"""

WRITTEN = "SELECT applied FROM attempt_results WHERE report_id = $1 AND number = $2 AND token = $3"

# What a process saw is kept even when it had been overtaken: it happened at the supplier.
RESULT = """
INSERT INTO attempt_results VALUES ($1, $2, ledger_now(), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT DO NOTHING
"""


STATES: dict[type, ReportState] = {
    Delivered: ReportState.DELIVERED,
    Later: ReportState.WAITING,
    Kept: ReportState.WAITING,
    Dead: ReportState.DEAD,
}


class ReportHoldings:
    """The reports that this very process is delivering; a row that names us and is not here is an orphan.

    Bounded by the prefetches of the lanes.
    """

    def __init__(self) -> None:
        self._claims: WeakValueDictionary[UUID, ReportClaim] = WeakValueDictionary()
        self._asking: list[UUID] = []

    def hold(self, claim: ReportClaim) -> ReportClaim:
        self._claims[claim.report_id] = claim
        return claim

    @contextmanager
    def asking(self, report_id: UUID) -> Iterator[None]:
        """While it is not known whether a claim was committed."""
        self._asking.append(report_id)
        try:
            yield
        finally:
            self._asking.remove(report_id)

    def in_hand(self) -> list[UUID]:
        return [*self._claims.keys(), *self._asking]


class Deliveries:
    """The two ends of an attempt."""

    def __init__(
        self, me: UUID, lines: Lines, reach: Reach, safe: Safe, rules: LaneRules, holdings: ReportHoldings
    ) -> None:
        self._me = me
        self._lines = lines
        self._reach = reach
        self._safe = safe
        self._rules = rules
        self._holdings = holdings

    async def claim(self, report_id: UUID, number: int) -> ReportClaim | None:
        token = uuid4()
        with self._holdings.asking(report_id):
            return await self._insist(partial(self._claim, report_id, number, token))

    async def _claim(
        self, report_id: UUID, number: int, token: UUID, again: bool, connection: Connection
    ) -> ReportClaim | None:
        mine = await connection.fetchrow(RECOGNISE, report_id, token) if again else None
        if mine is not None:
            return self._holdings.hold(self._opened(mine))
        async with connection.transaction():
            row = await connection.fetchrow(CLAIM, report_id, number, self._me, token)
            if row is None:
                return None
            try:
                claim = self._opened(row)
            except SealBroken as broken:
                log.error("report-does-not-open", report_id=report_id, reason=str(broken))
                await connection.execute(UNREADABLE, report_id)
                return None
            await connection.execute(
                INTENT, report_id, claim.attempt, self._me, claim.x_request_id, claim.probe
            )
        return self._holdings.hold(claim)

    def _opened(self, row: Row) -> ReportClaim:
        """Raises SealBroken."""
        report_id = row["report_id"]
        return ReportClaim(
            report_id=report_id,
            epoch=row["epoch"],
            owner=row["owner"],
            supplier=row["supplier"],
            attempt=row["attempts"],
            x_request_id=x_request_id(report_id, row["try_key"]),
            tries=Tries(row["retries"], row["crashes"], row["bugs"], row["unanswered"]),
            probe=row["probe"],
            count=row["count"],
            kind=ReportKind(row["kind"]),
            request_id=row["request_id"],
            jobcenter_code=row["jobcenter_code"],
            traceparent=row["traceparent"],
            content=self._safe.open(report_id, "report", row["content"]),
            replayed=row["replayed"],
        )

    async def finish(self, claim: ReportClaim, judgement: Judgement) -> bool:
        token = uuid4()
        return await self._insist(partial(self._finish, claim, judgement, token))

    async def _finish(
        self, claim: ReportClaim, judgement: Judgement, token: UUID, again: bool, connection: Connection
    ) -> bool:
        mine = (claim.report_id, claim.attempt, token)
        if again and (written := await connection.fetchval(WRITTEN, *mine)) is not None:
            return bool(written)
        async with connection.transaction():
            at = await self._teachable(connection, claim.supplier, judgement)
            tag = await connection.execute(FINISH, *_ending(claim, judgement))
            applied = tag == "UPDATE 1"
            await connection.execute(RESULT, *_result(claim, judgement, applied, token))
            if applied and at is not None and judgement.lane_event is not None:
                await learn(connection, at, judgement.lane_event, self._rules)
        return applied

    async def _teachable(
        self, connection: Connection, supplier: str, judgement: Judgement
    ) -> Standing | None:
        """The lane, locked, if this can tell it anything new: most deliveries cannot, and need no lock."""
        event = judgement.lane_event
        at = await look(connection, supplier) if event is not None else None
        if at is None or event is None or after(at.lane, event, at.now, self._rules) == at.lane:
            return None
        return await look(connection, supplier, LOCKED)

    async def _insist(self, work: Callable[[bool, Connection], Awaitable[T]]) -> T:
        """Until it is committed, however long PostgreSQL is away; `work` learns whether it may be already.

        Raises RowRefused.
        """
        away = refused = 0
        while True:
            try:
                return await self._lines.run(partial(work, away > 0))
            except LedgerAway:
                away += 1
                await self._reach.wait_until_back()
                await asyncio.sleep(min(1.0, 0.02 * 2 ** min(away, 10)))
            except RowRefused as error:
                refused += 1
                if not error.passing or refused >= PASSING_TRIES:
                    raise
                await asyncio.sleep(random.uniform(0.01, 0.1))  # noqa: S311  spreads retries, guards nothing


def _ending(claim: ReportClaim, judgement: Judgement) -> tuple[Any, ...]:
    """The values of FINISH."""
    verdict, tries, seen = judgement.verdict, judgement.tries, judgement.seen
    return (
        claim.report_id,
        claim.owner,
        claim.epoch,
        STATES[type(verdict)].value,
        timedelta(seconds=verdict.pause_s if isinstance(verdict, Later) else 0.0),
        tries.retries,
        tries.crashes,
        tries.bugs,
        tries.unanswered,
        isinstance(verdict, Delivered) and verdict.duplicate,
        _cause(verdict),
        judgement.cause_class,
        _fault(seen) if not isinstance(verdict, Delivered) else None,
    )


def _result(claim: ReportClaim, judgement: Judgement, applied: bool, token: UUID) -> tuple[Any, ...]:
    """The values of RESULT."""
    verdict, seen = judgement.verdict, judgement.seen
    return (
        claim.report_id,
        claim.attempt,
        type(verdict).__name__.lower(),
        _cause(verdict),
        seen.status if seen else None,
        _fault(seen),
        seen.what if seen else None,
        seen.milliseconds if seen else None,
        isinstance(verdict, Later) and verdict.counted,
        applied,
        token,
        claim.supplier,
    )


def _cause(verdict: Verdict) -> str | None:
    return None if isinstance(verdict, Delivered) else verdict.cause


def _fault(seen: Seen | None) -> str | None:
    return seen.fault.value if seen and seen.fault else None
