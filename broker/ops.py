"""What operators can do: the API behind the console and the command line.

`open_operations` gives `Operations`, whose parts read and act: `letters`, `replays`, `lanes`, `suppliers`, `stories`,
`people`, `log`, `overviews`. Every act takes an `Actor` (name and reason) and is recorded in the operators' log in the
same commit. Personal data is returned by `people.reveal` only.

Commands that need no operator, or more than an operator may do, use the ledger directly: `ledger upgrade`, `purge`,
`reseal` and `conserve`, `open` and `status`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

from broker.ledger.audit_log import Actor, Refusal, login_name
from broker.ledger.dead_letters.letter_model import Filter, Letter, PageCursor
from broker.ledger.dead_letters.letters import MOST_AT_ONCE
from broker.ledger.dead_letters.replays import NO_BOOKINGS, ReplayProgress
from broker.ledger.operators.flow import Flow
from broker.ledger.operators.operations import Operations
from broker.ledger.operators.overview_model import Overview, Waiting
from broker.ledger.operators.stories import WholeStory
from broker.ledger.operators.supplier_figures import SupplierFigures, SupplierStory
from broker.ledger.reports.report_model import LaneRow, ReportStory
from broker.reports.supplier_test import TRIAL, trial_for
from broker.sealing import Sealer
from config.directory import Directory
from config.settings import Settings
from schemas.personal import Cpr

# The console may not import the ledger (import contract "the console acts through ops alone"), so it gets the types
# and constants that it shows from here; the command line uses the same names.
__all__ = [
    "MOST_AT_ONCE",
    "NO_BOOKINGS",
    "TRIAL",
    "Actor",
    "Filter",
    "Flow",
    "LaneRow",
    "Letter",
    "Operations",
    "Overview",
    "PageCursor",
    "Refusal",
    "ReplayProgress",
    "ReportStory",
    "SupplierFigures",
    "SupplierStory",
    "Waiting",
    "WholeStory",
    "login_name",
]


@asynccontextmanager
async def open_operations(settings: Settings) -> AsyncIterator[Operations]:
    """Raises LedgerAway, LedgerMisfit."""
    async with Operations.open(settings, Sealer(settings.keys)) as operations:
        yield operations


async def send_test_report(operations: Operations, directory: Directory, supplier: str, by: Actor) -> UUID:
    """Put a report about the agreed test citizen on a supplier's lane; it is delivered like every other report.

    Returns its reportId. Raises Refusal if no test citizen is agreed with the supplier.
    """
    config = directory.suppliers.get(supplier)
    served = sorted(code for code, place in directory.jobcenters.items() if place.supplier == supplier)
    if config is None or not served:
        raise Refusal(f"the directory knows no supplier {supplier} with a jobcenter")
    if config.test_cpr is None:
        raise Refusal(
            f"no test citizen is agreed with {supplier}: a test report would look like a real one"
            f" (directory: suppliers.{supplier}.test_cpr)"
        )
    try:
        cpr = Cpr(config.test_cpr.get_secret_value())
    except ValueError:
        raise Refusal(f"suppliers.{supplier}.test_cpr is not of the form of a CPR number") from None
    report = trial_for(supplier, served[0], cpr, datetime.now(UTC))
    await operations.add_report(report, by, "lanes.test")
    return report.report_id
