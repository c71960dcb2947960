"""The claims that this process holds in memory, as opposed to those that the ledger says it owns. No I/O.

A row that names this process as its owner but is not held here is orphaned: its call was cancelled or its task died.
References are weak, so a task that ended in any way holds nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from uuid import UUID
from weakref import WeakValueDictionary

from broker.ledger.model import Claim


class HeldClaims:
    """Bounded by the callers: one claim for each message in flight, and the scheduler's batch of verifications."""

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
        return [*self._claims.keys(), *self._asking.values()]
