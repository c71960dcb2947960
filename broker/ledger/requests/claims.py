"""Claims and records: one insert takes both claim and turn; for a row that conflicts, the existing row decides.

docs/architecture.md#claim. Every statement commits by itself and is safe to repeat: an insert whose COMMIT was
interrupted is recognised by its own claim token. Rows are sorted by turn, so that two batches lock them in one order.
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
from broker.ledger.postgres.columns import by_column
from broker.ledger.postgres.connections import Connection, LazyConnection, Pool
from broker.ledger.postgres.heartbeat import deaths, owner_is_dead
from broker.ledger.postgres.sealed import CLAIM, ENDING, FieldSealer, SealedRow, claim_of, facts_of, qualified
from broker.ledger.reports.new_reports import NewReports, ReportEntry
from broker.ledger.requests.entries import COLUMNS, INSERT, ClaimEntry, entry_of
from broker.ledger.requests.held_claims import HeldClaims
from broker.sealing import SealBroken

ROUNDS = 5
"""How often a row is tried whose turn was held at the insert and free again at the look-up."""

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

# As if the claim had not been taken over: its death does not count.
RELEASE = """
UPDATE requests SET owner = NULL, epoch = epoch + 1, dead_owners = greatest(dead_owners - 1, 0)
WHERE request_id = $1 AND owner = $2 AND epoch = $3 AND state = 'running'
"""


@dataclass(frozen=True, slots=True)
class _Orphan:
    """A running row without a living owner, as read at `epoch`; another process may still take it first."""

    epoch: int


ClaimResult = ClaimOutcome | Exception


class Claims:
    """Makes entries from requests, and commits batches of them."""

    def __init__(
        self,
        owner: UUID,
        threshold: timedelta,
        connection: LazyConnection,
        pool: Pool,
        sealer: FieldSealer,
        held: HeldClaims,
        new_reports: NewReports,
    ) -> None:
        """Batches are committed on `connection`; `pool` is for the call that is not batched."""
        self._owner = owner
        self._threshold = threshold
        self._connection = connection
        self._pool = pool
        self._sealer = sealer
        self._held = held
        self._new_reports = new_reports

    def entry(self, request: ClaimRequest, ending: StoredAnswer | None = None) -> ClaimEntry:
        """The row for a claim, or for a record if there is an ending. Raises ValueError for an uncertain record."""
        return entry_of(request, ending, owner=self._owner, sealer=self._sealer)

    async def flush(self, entries: Sequence[ClaimEntry]) -> list[ClaimResult]:
        """For each entry its outcome or its own error. Raises LedgerAway, RowRefused."""
        outcomes = await self._connection.run(lambda connection: self._commit(connection, entries))
        return [outcomes[entry.token] for entry in entries]

    async def release(self, claim: Claim) -> None:
        """Give a running claim up: another process takes it over. Raises LedgerAway."""
        await self._pool.run(
            lambda connection: connection.execute(RELEASE, claim.request_id, claim.owner, claim.epoch)
        )

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
        # In every round another request held the turn at the insert and had freed it at the look-up. The caller waits
        # and asks again, as for any busy citizen.
        return outcomes | {
            entry.token: CitizenBusy(entry.request.request_id, uncertain=False) for entry in left
        }

    async def _insert(self, connection: Connection, entries: Sequence[ClaimEntry]) -> dict[UUID, ClaimResult]:
        inserted = await _inserted(connection, [entry for entry in entries if entry.report is None])
        # A report commits together with its record. A record takes no turn, so this transaction waits for none.
        if reported := [entry for entry in entries if entry.report is not None]:
            async with connection.transaction():
                await self._new_reports.lock(connection, _reports(reported))
                rows = await _inserted(connection, reported)
                made = _reports([entry for entry in reported if entry.token in rows])
                await self._new_reports.make(connection, made)
            inserted |= rows
        return {
            entry.token: self._inserted(entry, inserted[entry.token])
            for entry in entries
            if entry.token in inserted
        }

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
        return Claimed(claim_of(written, taken_over=False))

    async def _judge_existing(
        self, connection: Connection, entries: Sequence[ClaimEntry]
    ) -> dict[UUID, ClaimResult]:
        ids = list({entry.request.request_id for entry in entries})
        rows = await connection.fetch(LOOK_UP, self._owner, self._threshold, ids)
        found = {row["request_id"]: row for row in rows}
        outcomes: dict[UUID, ClaimResult] = {}
        orphans: dict[UUID, tuple[ClaimEntry, int]] = {}
        for entry in entries:
            if (row := found.get(entry.request.request_id)) is None:
                continue
            judged = self._judge(entry, row)
            if not isinstance(judged, _Orphan):
                outcomes[entry.token] = judged
            elif entry.request.request_id in orphans:
                # Another entry of this batch, for the same request, takes it over.
                outcomes[entry.token] = ClaimedElsewhere()
            else:
                orphans[entry.request.request_id] = (entry, judged.epoch)
        if orphans:
            outcomes |= await self._take_over(connection, list(orphans.values()))
        return outcomes

    def _judge(self, entry: ClaimEntry, row: SealedRow) -> ClaimResult | _Orphan:
        if not self._sealer.is_same(entry.request, row):
            return Conflict()
        if row["state"] != State.RUNNING:
            return self._settled(row)
        if row["claim_token"] == entry.token:
            return self._recognised(row)
        if row["owner"] == self._owner:
            held = self._held.has(entry.request.request_id) or self._held.is_asking(row["claim_token"])
            return ClaimedElsewhere() if held else _Orphan(row["epoch"])
        return _Orphan(row["epoch"]) if row["owner_dead"] else ClaimedElsewhere()

    def _recognised(self, row: SealedRow) -> ClaimOutcome:
        """Committed by an earlier try of this batch; above epoch 1 as a takeover."""
        taken_over = row["epoch"] > 1
        claim = claim_of(row, taken_over=taken_over)
        return TakenOver(claim) if taken_over else Claimed(claim)

    def _settled(self, row: SealedRow) -> Settled | SealBroken:
        try:
            return self._sealer.settled(row)
        except SealBroken as broken:
            return broken

    async def _take_over(
        self, connection: Connection, orphans: Sequence[tuple[ClaimEntry, int]]
    ) -> dict[UUID, ClaimResult]:
        ordered = sorted(orphans, key=lambda orphan: orphan[0].request.request_id.bytes)
        ids = [entry.request.request_id for entry, _ in ordered]
        epochs = [epoch for _, epoch in ordered]
        tokens = [entry.token for entry, _ in ordered]
        rows = await connection.fetch(TAKE_OVER, self._owner, self._threshold, ids, epochs, tokens)
        taken = {row["request_id"]: claim_of(row, taken_over=True) for row in rows}
        return {entry.token: self._taken(taken.get(entry.request.request_id)) for entry, _ in ordered}

    def _taken(self, claim: Claim | None) -> ClaimOutcome:
        # None: another process took it first.
        return TakenOver(claim) if claim else ClaimedElsewhere()

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
    rows = await connection.fetch(INSERT, *by_column(entry.values for entry in entries))
    return {row["claim_token"]: row for row in rows}


def _reports(entries: Iterable[ClaimEntry]) -> list[ReportEntry]:
    return [entry.report for entry in entries if entry.report is not None]


def _turns(entries: Iterable[ClaimEntry]) -> set[bytes]:
    return {entry.turn for entry in entries if entry.turn is not None}
