"""Claim and record: one insert is claim and turn; what conflicts is looked up and judged (DESIGN 5, "Claim").

Every statement commits by itself, and each is safe to repeat: an insert whose commit has an unknown fate is
recognised by its own claim token. Rows are sorted by turn, so that two batches wait for each other in one
order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from broker.ledger.model import (
    CitizenBusy,
    Claim,
    Claimed,
    ClaimedElsewhere,
    ClaimOutcome,
    ClaimRequest,
    Conflict,
    Settled,
    State,
    StoredAnswer,
    TakenOver,
)
from broker.ledger.postgres.connections import Connection, LazyConnection
from broker.ledger.postgres.heartbeat import deaths, owner_is_dead
from broker.ledger.postgres.sealed import CLAIM, ENDING, FieldSealer, SealedRow, claim_of, facts_of, qualified
from broker.ledger.reports.new_reports import NewReports, ReportEntry
from broker.ledger.requests.entries import COLUMNS, INSERT, ClaimEntry, entry_of
from broker.ledger.requests.held_claims import HeldClaims
from broker.sealing import SealBroken

ROUNDS = 5
"""How often a row is tried whose turn was taken and given back between insert and look-up."""

LOOK_UP = f"""
SELECT {ENDING}, epoch, owner, claim_token, dead_owners, business_hmac, business_key, deadline_at,
    traceparent, verify_tries, state = 'running' AND {owner_is_dead("requests.owner")} AS owner_dead
FROM requests WHERE request_id = ANY($3::uuid[])
"""

HOLDERS = "SELECT turn, request_id, state FROM requests WHERE turn = ANY($1::bytea[])"

TAKE_OVER = f"""
UPDATE requests SET
    owner = $1, epoch = requests.epoch + 1, claim_token = seen.token,
    dead_owners = dead_owners + {deaths("requests.owner")}
FROM unnest($3::uuid[], $4::bigint[], $5::uuid[]) AS seen (id, epoch, token)
WHERE request_id = seen.id AND requests.epoch = seen.epoch AND state = 'running'
    AND (requests.owner = $1 OR {owner_is_dead("requests.owner")})
RETURNING {qualified(CLAIM, "requests")}
"""


@dataclass(frozen=True, slots=True)
class _Orphan:
    """The judgement that a running row has no living owner; another may still be quicker to take it."""

    epoch: int


ClaimResult = ClaimOutcome | Exception


class Claims:
    """Makes entries from asks, and commits batches of them."""

    def __init__(
        self,
        me: UUID,
        threshold: timedelta,
        line: LazyConnection,
        safe: FieldSealer,
        holdings: HeldClaims,
        new_reports: NewReports,
    ) -> None:
        self._me = me
        self._threshold = threshold
        self._line = line
        self._safe = safe
        self._holdings = holdings
        self._new_reports = new_reports

    def entry(self, ask: ClaimRequest, ending: StoredAnswer | None = None) -> ClaimEntry:
        """Of this process; what fails here fails for one caller."""
        return entry_of(ask, ending, owner=self._me, safe=self._safe)

    async def flush(self, entries: Sequence[ClaimEntry]) -> list[ClaimResult]:
        """An outcome for each entry, or the error that is its own. Raises LedgerAway, RowRefused."""
        outcomes = await self._line.run(lambda connection: self._commit(connection, entries))
        return [outcomes[entry.token] for entry in entries]

    async def _commit(self, connection: Connection, entries: Sequence[ClaimEntry]) -> dict[UUID, ClaimResult]:
        outcomes: dict[UUID, ClaimResult] = {}
        left = sorted(entries, key=lambda entry: entry.order)
        for _ in range(ROUNDS):
            outcomes |= await self._insert(connection, left)
            left = [entry for entry in left if entry.token not in outcomes]
            if left:
                outcomes |= await self._judge_existing(connection, left)
                left = [entry for entry in left if entry.token not in outcomes]
            if left:
                outcomes |= await self._judge_turns(connection, left)
                left = [entry for entry in left if entry.token not in outcomes]
            if not left:
                return outcomes
        # Somebody else had the turn at each look, and had given it back at the next: to the caller that is
        # "wait".
        return outcomes | {entry.token: CitizenBusy(entry.ask.request_id, uncertain=False) for entry in left}

    async def _insert(self, connection: Connection, entries: Sequence[ClaimEntry]) -> dict[UUID, ClaimResult]:
        """What comes with a report commits together with it; a record has no turn to wait for."""
        inserted = await _inserted(connection, [entry for entry in entries if entry.report is None])
        if reported := [entry for entry in entries if entry.report is not None]:
            async with connection.transaction():
                await self._new_reports.lock(connection, _reports(reported))
                rows = await _inserted(connection, reported)
                made = _reports([entry for entry in reported if entry.token in rows])
                await self._new_reports.make(connection, made)
            inserted |= rows
        return {e.token: self._inserted(e, inserted[e.token]) for e in entries if e.token in inserted}

    def _inserted(self, entry: ClaimEntry, row: SealedRow) -> ClaimOutcome:
        written = dict(zip(COLUMNS, entry.values, strict=True)) | {
            "epoch": 1,
            "dead_owners": 0,
            "last_sent_at": None,
            "uncertain_since": None,
            "verify_tries": 0,
            "corrected": False,
            "settled_at": row["settled_at"],
        }
        if entry.ending is not None:
            return Settled(entry.ending, facts_of(written))
        return Claimed(self._holdings.hold(claim_of(written, taken_over=False)))

    async def _judge_existing(
        self, connection: Connection, entries: Sequence[ClaimEntry]
    ) -> dict[UUID, ClaimResult]:
        ids = list({entry.ask.request_id for entry in entries})
        rows = await connection.fetch(LOOK_UP, self._me, self._threshold, ids)
        found = {row["request_id"]: row for row in rows}
        outcomes: dict[UUID, ClaimResult] = {}
        orphans: dict[UUID, tuple[ClaimEntry, int]] = {}
        for entry in entries:
            if (row := found.get(entry.ask.request_id)) is None:
                continue
            judged = self._judge(entry, row)
            if not isinstance(judged, _Orphan):
                outcomes[entry.token] = judged
            elif entry.ask.request_id in orphans:
                outcomes[entry.token] = ClaimedElsewhere()  # its twin in this batch takes over
            else:
                orphans[entry.ask.request_id] = (entry, judged.epoch)
        if orphans:
            outcomes |= await self._take_over(connection, list(orphans.values()))
        return outcomes

    def _judge(self, entry: ClaimEntry, row: SealedRow) -> ClaimResult | _Orphan:
        if not self._safe.is_same(entry.ask, row):
            return Conflict()
        if row["state"] != State.RUNNING:
            return self._settled(row)
        if row["claim_token"] == entry.token:
            return self._recognised(row)
        if row["owner"] == self._me:
            held = self._holdings.has(entry.ask.request_id) or self._holdings.is_asking(row["claim_token"])
            return ClaimedElsewhere() if held else _Orphan(row["epoch"])
        return _Orphan(row["epoch"]) if row["owner_dead"] else ClaimedElsewhere()

    def _recognised(self, row: SealedRow) -> ClaimOutcome:
        """Committed by an earlier try of this very batch. Only a first epoch was never anybody else's."""
        taken_over = row["epoch"] > 1
        claim = self._holdings.hold(claim_of(row, taken_over=taken_over))
        return TakenOver(claim) if taken_over else Claimed(claim)

    def _settled(self, row: SealedRow) -> Settled | SealBroken:
        try:
            return self._safe.settled(row)
        except SealBroken as broken:
            return broken

    async def _take_over(
        self, connection: Connection, orphans: Sequence[tuple[ClaimEntry, int]]
    ) -> dict[UUID, ClaimResult]:
        seen = sorted(orphans, key=lambda orphan: orphan[0].ask.request_id.bytes)
        ids = [entry.ask.request_id for entry, _ in seen]
        epochs = [epoch for _, epoch in seen]
        tokens = [entry.token for entry, _ in seen]
        rows = await connection.fetch(TAKE_OVER, self._me, self._threshold, ids, epochs, tokens)
        taken = {row["request_id"]: claim_of(row, taken_over=True) for row in rows}
        return {entry.token: self._taken(taken.get(entry.ask.request_id)) for entry, _ in seen}

    def _taken(self, claim: Claim | None) -> ClaimOutcome:
        return TakenOver(self._holdings.hold(claim)) if claim else ClaimedElsewhere()  # another was quicker

    async def _judge_turns(
        self, connection: Connection, entries: Sequence[ClaimEntry]
    ) -> dict[UUID, ClaimResult]:
        rows = await connection.fetch(HOLDERS, list(_turns(entries)))
        holders = {row["turn"]: row for row in rows if row["turn"] is not None}
        return {
            entry.token: CitizenBusy(holder["request_id"], uncertain=holder["state"] == State.UNCERTAIN)
            for entry in entries
            if entry.turn is not None and (holder := holders.get(entry.turn)) is not None
        }


async def _inserted(connection: Connection, entries: Sequence[ClaimEntry]) -> dict[UUID, SealedRow]:
    if not entries:
        return {}
    arrays = [list(column) for column in zip(*(entry.values for entry in entries), strict=True)]
    return {row["claim_token"]: row for row in await connection.fetch(INSERT, *arrays)}


def _reports(entries: Iterable[ClaimEntry]) -> list[ReportEntry]:
    return [entry.report for entry in entries if entry.report is not None]


def _turns(entries: Iterable[ClaimEntry]) -> set[bytes]:
    return {entry.turn for entry in entries if entry.turn is not None}
