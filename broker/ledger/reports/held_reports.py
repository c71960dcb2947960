"""The reports that this process is delivering, as opposed to those that the ledger says it owns. No I/O.

A report is held from the commit that claimed it until its delivery ends in any way, and is let go there on purpose.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from uuid import UUID

from broker.ledger.reports.report_model import ReportClaim


class HeldReports:
    """Bounded by the prefetches of the lanes."""

    def __init__(self) -> None:
        # By report, the epoch of the newest claim: an older one can finish nothing any more.
        self._epochs: dict[UUID, int] = {}
        self._asking: list[UUID] = []

    def hold(self, claim: ReportClaim) -> ReportClaim:
        """Hold the claim until `let_go`."""
        self._epochs[claim.report_id] = claim.epoch
        return claim

    def let_go(self, claim: ReportClaim) -> None:
        """The delivery has ended. Without a result the report is orphaned from now on."""
        if self._epochs.get(claim.report_id) == claim.epoch:
            del self._epochs[claim.report_id]

    @contextlib.contextmanager
    def until_end(self, claim: ReportClaim) -> Iterator[None]:
        """Let the claim go at the end of the block, however it ends."""
        try:
            yield
        finally:
            self.let_go(claim)

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
        return [*self._epochs, *self._asking]
