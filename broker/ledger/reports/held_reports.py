"""The reports that this process is delivering, as opposed to those that the ledger says it owns. No I/O."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from uuid import UUID
from weakref import WeakValueDictionary

from broker.ledger.reports.report_model import ReportClaim


class HeldReports:
    """Claims of reports in memory, held weakly. Bounded by the prefetches of the lanes."""

    def __init__(self) -> None:
        self._claims: WeakValueDictionary[UUID, ReportClaim] = WeakValueDictionary()
        self._asking: list[UUID] = []

    def hold(self, claim: ReportClaim) -> ReportClaim:
        self._claims[claim.report_id] = claim
        return claim

    @contextlib.contextmanager
    def asking(self, report_id: UUID) -> Iterator[None]:
        """While a claim is being committed: it may be committed before its caller holds it."""
        self._asking.append(report_id)
        try:
            yield
        finally:
            self._asking.remove(report_id)

    def ids(self) -> list[UUID]:
        """The reports that are not orphaned although this process owns them."""
        return [*self._claims.keys(), *self._asking]
