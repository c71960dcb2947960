"""What this very process is working on, as opposed to what the ledger says that it owns.

A row that names us as its owner but is not held here is an orphan: its call was cancelled or its task died.
Claims are held weakly, so that a task that ended in whatever way holds nothing. No I/O.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from uuid import UUID
from weakref import WeakValueDictionary

from broker.ledger.model import Claim


class HeldClaims:
    """Bounded by the callers: one claim per arrival in flight, and the scheduler's batch of verifications."""

    def __init__(self) -> None:
        self._claims: WeakValueDictionary[UUID, Claim] = WeakValueDictionary()
        self._asking: dict[UUID, UUID] = {}

    def hold(self, claim: Claim) -> Claim:
        self._claims[claim.request_id] = claim
        return claim

    def has(self, request_id: UUID) -> bool:
        return request_id in self._claims

    @contextlib.contextmanager
    def asking(self, request_id: UUID, token: UUID) -> Iterator[None]:
        """While a claim is being committed under `token`: whether it is ours is not known yet."""
        self._asking[token] = request_id
        try:
            yield
        finally:
            del self._asking[token]

    def is_asking(self, token: UUID | None) -> bool:
        return token in self._asking

    def in_hand(self) -> list[UUID]:
        """Everything that a sweep must not take for an orphan."""
        return [*self._claims.keys(), *self._asking.values()]
