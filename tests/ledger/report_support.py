"""Helpers of the reports' tests: failures with a report, time travel, hand-over, decisions."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from broker.errors import CallFacts, ContractBroken, Misconfigured, Refused, Unavailable
from broker.lanes.decision import Decision
from broker.lanes.events import Event
from broker.lanes.lane import Lane
from broker.lanes.retry_policy import judge
from broker.ledger.ledger import Ledger
from broker.ledger.model import ClaimRequest, NewReport, StoredAnswer
from broker.ledger.reports.lanes import ADD, LOCKED, apply_event, read_lane
from broker.ledger.reports.report_model import HandedOver, LaneLimits, ReportClaim
from config.settings import Settings
from schemas.codes import Reason, ReportKind, Status
from tests.ledger.support import Sql, ask, claimed, ending, settings_for

NORTH, SOUTH = "nordsoft", "sydsoft"
WIDE = {name: LaneLimits(window=1000, rate_per_second=10_000) for name in (NORTH, SOUTH)}
RULES = {
    "retry_delays_seconds": (10, 60),
    "merge_within_seconds": 600,
    "join_within_seconds": 300,
    "park_after_failures": 3,
    "park_first_seconds": 60,
    "park_most_seconds": 240,
    "handed_over_too_long_seconds": 60,
    "probe_within_seconds": 90,
    "crashes_most": 3,
    "bug_tries": 2,
}


def report_settings(dsn: str, **ledger: Any) -> Settings:
    chosen = settings_for(dsn, **ledger)
    return chosen.model_copy(update={"reports": chosen.reports.model_copy(update=RULES)})


def report_on(asked: ClaimRequest, **changes: Any) -> NewReport:
    """An automatic report on this request, not merged unless `merge` is given."""
    number = asked.cpr.reveal()
    fields: dict[str, Any] = {
        "report_id": uuid4(),
        "kind": ReportKind.AUTOMATIC,
        "request_id": asked.request_id,
        "supplier": asked.supplier,
        "jobcenter_code": asked.jobcenter_code,
        "type": asked.type,
        "error_code": 4,
        "occurred_at": datetime.now(UTC),
        "content": b'{"cpr":"%s","fejltekst":"Systemfejl"}' % number.encode(),
        "cpr": asked.cpr,
        "traceparent": asked.traceparent,
    }
    return NewReport(**fields | changes)


def failed(report: NewReport | None) -> StoredAnswer:
    return ending(Status.FAILED, b'{"status":"failed"}', error_code=4, report=report)


async def reported(ledger: Ledger, asked: ClaimRequest | None = None, **changes: Any) -> UUID:
    """The report of a booking that failed; it is due."""
    asked = asked or ask(supplier=changes.get("supplier", NORTH))
    report = report_on(asked, **changes)
    assert await ledger.requests.settle(await claimed(ledger, asked), failed(report))
    return report.report_id


async def handed_over(ledger: Ledger, limits: dict[str, LaneLimits] | None = None) -> list[HandedOver]:
    return await ledger.reports.handover.hand_over(limits or WIDE)


async def delivering(ledger: Ledger, report_id: UUID) -> ReportClaim:
    """Hand over all due reports and claim this one."""
    handed = {one.report_id: one for one in await handed_over(ledger)}
    claim = await ledger.reports.claim(report_id, handed[report_id].number)
    assert claim is not None
    return claim


def judged(claim: ReportClaim, error: Exception | None, rules: Settings, **more: Any) -> Decision:
    return judge(error, claim.tries, rules.reports, {}, probe=claim.probe, chance=random.random, **more)


def call_facts(what: str = "status 500", **more: Any) -> CallFacts:
    return CallFacts(NORTH, "deliver", what, **more)


def down(retry_after: float | None = None, status: int = 500) -> Unavailable:
    return Unavailable(call_facts(f"status {status}", status=status), retry_after)


def unanswered() -> Unavailable:
    return Unavailable(call_facts("timeout", unanswered=True))


def wrong_address() -> Misconfigured:
    return Misconfigured(call_facts("status 404", status=404))


def web_page() -> ContractBroken:
    return ContractBroken(call_facts("html", status=200))


def refused() -> Refused:
    return Refused(Reason.UNKNOWN_OFFER, call_facts=call_facts("status 404", status=404))


async def tell_lane(sql: Sql, rules: Settings, event: Event, supplier: str = NORTH) -> Lane:
    """Apply an operator's event to a lane, as an operator does."""
    async with sql.transaction():
        await sql.execute(ADD, supplier)
        snapshot = await read_lane(sql, supplier, LOCKED)
        assert snapshot is not None
        return await apply_event(sql, snapshot, event, rules.reports)


async def travel(sql: Sql, seconds: float) -> None:
    """Set the ledger's clock ahead of PostgreSQL's."""
    await sql.execute(
        "CREATE OR REPLACE FUNCTION ledger_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
        f" $$SELECT clock_timestamp() + interval '{seconds} seconds'$$"
    )


async def report_row(sql: Sql, report_id: UUID) -> Any:
    return await sql.fetchrow("SELECT * FROM reports WHERE report_id = $1", report_id)


async def lane_row(sql: Sql, supplier: str = NORTH) -> Any:
    return await sql.fetchrow("SELECT * FROM lanes WHERE supplier = $1", supplier)


async def state_of(sql: Sql, report_id: UUID) -> str:
    return str((await report_row(sql, report_id))["state"])
