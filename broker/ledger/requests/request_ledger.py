"""`ledger.requests`: claim, record and settle requests, batched into group commits.

These calls wait while PostgreSQL is away; only `release` raises LedgerAway then. Nothing is published or called from
here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any

from broker.ledger.model import Claim, Claimed, ClaimOutcome, ClaimRequest, Settled, StoredAnswer, TakenOver
from broker.ledger.postgres.group_commit import GroupCommit
from broker.ledger.postgres.reachability import Availability
from broker.ledger.requests.claims import Claims
from broker.ledger.requests.entries import ClaimEntry
from broker.ledger.requests.held_claims import HeldClaims
from broker.ledger.requests.settles import SettleEntry, Settles
from config.sections import LedgerSettings


class Requests:
    """What one process does with requests: each call returns when its batch is committed."""

    def __init__(
        self,
        settings: LedgerSettings,
        claims: Claims,
        settles: Settles,
        held: HeldClaims,
        availability: Availability,
    ) -> None:
        self._claims = claims
        self._settles = settles
        self._held = held
        most, linger_s = settings.batch_size, settings.batch_linger_ms / 1000
        self._claiming: GroupCommit[ClaimEntry, ClaimOutcome] = GroupCommit(
            claims.flush, availability, most=most, linger_s=linger_s, what="claims"
        )
        self._settling: GroupCommit[SettleEntry, Settled | None] = GroupCommit(
            settles.flush, availability, most=most, linger_s=linger_s, what="settles"
        )

    @property
    def commit_loops(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """The loops that commit claims and settles; each runs as one task until it is cancelled."""
        return self._claiming.run, self._settling.run

    async def drained(self) -> None:
        """Wait until every claim and settle so far is committed."""
        await self._claiming.drained()
        await self._settling.drained()

    async def claim(self, request: ClaimRequest) -> ClaimOutcome:
        """Claim the request and its citizen's turn. Raises RowRefused, SealBroken (of a stored answer).

        The sweep leaves the claim alone until the caller lets it go: `with requests.until_end(claim):`.
        """
        return await self._submit(self._claims.entry(request))

    async def record(self, request: ClaimRequest, ending: StoredAnswer) -> ClaimOutcome:
        """Store the ending of a request that was never begun; it takes no turn. A known request has a claim's outcomes.

        Also for a failed query, because a citizen may report it; a repetition changes nothing. Raises as `claim`.
        """
        return await self._submit(self._claims.entry(request, ending))

    async def _submit(self, entry: ClaimEntry) -> ClaimOutcome:
        with self._held.asking(entry.request.request_id, entry.token):
            outcome = await self._claiming.submit(entry)
            if isinstance(outcome, Claimed | TakenOver):
                # Not before: a caller that was cancelled meanwhile would never let it go.
                self._held.hold(outcome.claim)
            return outcome

    def until_end(self, claim: Claim) -> AbstractContextManager[None]:
        """Let the claim go at the end of the block. Without a settle the next sweep finds an orphan then."""
        return self._held.until_end(claim)

    async def settle(self, claim: Claim, ending: StoredAnswer) -> Settled | None:
        """The stored ending; None if the claim was overtaken: publish nothing then. Raises RowRefused."""
        return await self._settling.submit(self._settles.entry(claim, ending))

    async def release(self, claim: Claim) -> None:
        """Give a running claim up, as if it had not been taken over: another process takes it. Raises LedgerAway."""
        await self._claims.release(claim)
