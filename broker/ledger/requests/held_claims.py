"""The claims that this process works on, as opposed to those that the ledger says it owns. No I/O.

A row that names this process as its owner but is not held here is orphaned: its call was cancelled or its task died.
A claim is held from the commit that made it until its work ends in any way, and is let go there on purpose: an
exception can keep an object alive until the next garbage collection, so references prove nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from uuid import UUID

from broker.ledger.model import Claim


class HeldClaims:
    """Bounded by the callers: one claim for each message in flight, and the scheduler's batch of verifications."""

    def __init__(self) -> None:
        # By request, the epoch of the newest claim: an older one can settle nothing any more.
        self._epochs: dict[UUID, int] = {}
        self._asking: dict[UUID, UUID] = {}

    def hold(self, claim: Claim) -> Claim:
        """Hold the claim until `let_go`."""
        self._epochs[claim.request_id] = claim.epoch
        return claim

    def let_go(self, claim: Claim) -> None:
        """The work on this claim has ended. Without a settle the row is orphaned from now on."""
        if self._epochs.get(claim.request_id) == claim.epoch:
            del self._epochs[claim.request_id]

    @contextlib.contextmanager
    def until_end(self, claim: Claim) -> Iterator[None]:
        """Let the claim go at the end of the block, however it ends."""
        try:
            yield
        finally:
            self.let_go(claim)

    def has(self, request_id: UUID) -> bool:
        return request_id in self._epochs

    @contextlib.contextmanager
    def asking(self, request_id: UUID, token: UUID) -> Iterator[None]:
        """While a claim is being committed under `token`: it may be committed before its caller holds it."""
        self._asking[token] = request_id
        try:
            yield
        finally:
            del self._asking[token]

    def is_asking(self, token: UUID | None) -> bool:
        return token in self._asking

    def ids(self) -> list[UUID]:
        """The requests that are not orphaned although this process owns them."""
        return [*self._epochs, *self._asking.values()]
