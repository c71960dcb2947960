"""What an operator can do, as functions over one desk; the command line and the console are skins over these.

Every act takes an `Actor` (who, why) and is in the operators' log in the same commit; nobody acts without a name and
a reason. What is shown here is never personal, but for `reveal`, which says one field once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

from broker.lanes.lane import Event, Lane, Paused, Resumed
from broker.ledger.audit_log import Actor, LogEntry, Refusal, login_name
from broker.ledger.dead_letters.letters import MOST_AT_ONCE, Filter, Group, Letter, LetterPage, PageCursor
from broker.ledger.dead_letters.replays import NO_BOOKINGS, Preview, ReplayItem, ReplayProgress
from broker.ledger.operators.desk import Operations
from broker.ledger.operators.flow import Flow, FlowStep
from broker.ledger.operators.overview_model import DeadCause, Overview, Problem, Waiting
from broker.ledger.operators.people import CitizenRecord
from broker.ledger.operators.stories import WholeStory
from broker.ledger.operators.supplier_figures import LaneAttempt, SupplierFigures, SupplierStory
from broker.ledger.reports.lane_history import LaneChange
from broker.ledger.reports.report_model import LaneRow, ReportRow, ReportStory
from broker.reports.supplier_test import TRIAL, trial_for
from broker.sealing import Sealer
from config.directory import Directory
from config.settings import Settings
from schemas.personal import Cpr

__all__ = [
    "MOST_AT_ONCE",
    "NO_BOOKINGS",
    "TRIAL",
    "Actor",
    "CitizenRecord",
    "DeadCause",
    "Filter",
    "Flow",
    "FlowStep",
    "Group",
    "LaneAttempt",
    "LaneChange",
    "LaneRow",
    "Letter",
    "LetterPage",
    "LogEntry",
    "Operations",
    "Overview",
    "PageCursor",
    "Preview",
    "Problem",
    "Refusal",
    "ReplayAct",
    "ReplayItem",
    "ReplayProgress",
    "ReportRow",
    "ReportStory",
    "SupplierFigures",
    "SupplierStory",
    "Waiting",
    "WholeStory",
    "login_name",
]


ReplayAct = Callable[[Operations, UUID, Actor], Awaitable[None]]
"""Start, stop or resume a replay."""


@asynccontextmanager
async def open_operations(settings: Settings) -> AsyncIterator[Operations]:
    """A desk for a short while. Raises LedgerAway, LedgerMisfit."""
    async with Operations.open(settings, Sealer(settings.keys)) as desk:
        yield desk


# -- figures ---------------------------------------------------------------------------------------------------------


async def overview(desk: Operations, *, hours: float = 3, step_minutes: int = 1) -> Overview:
    """Are we healthy, in one glance; with the flow of the last hours, at most 14 days, in steps of some minutes."""
    if not (0 < hours <= 14 * 24 and 1 <= step_minutes <= 24 * 60):
        raise Refusal("the flow is told for at most 14 days, in steps of 1 to 1440 minutes")
    return await desk.overviews.overview(hours, step_minutes)


async def suppliers(desk: Operations) -> list[SupplierFigures]:
    """Every supplier's lane, attempts, latency and what was delivered, over the last day."""
    return await desk.suppliers.figures()


async def supplier(desk: Operations, name: str, *, limit: int = 50) -> SupplierStory:
    """One supplier with its newest attempts and how its lane changed. Raises Refusal."""
    found = await desk.suppliers.story(name, limit=limit)
    if found is None:
        raise Refusal(f"no lane {name} is known")
    return found


# -- dead letters ----------------------------------------------------------------------------------------------------


async def dead_letters(
    desk: Operations, wanted: Filter, *, limit: int = 100, discarded: bool = False
) -> list[Letter]:
    """Dead letters, newest first; with `discarded`, those put aside instead."""
    return await desk.letters.listed(wanted, limit=limit, discarded=discarded)


async def letter_page(
    desk: Operations,
    wanted: Filter,
    *,
    limit: int = 50,
    after: PageCursor | None = None,
    discarded: bool = False,
) -> LetterPage:
    """A page of dead letters, newest first, behind a place; letters that die meanwhile shift nothing."""
    return await desk.letters.page(wanted, limit=limit, after=after, discarded=discarded)


async def groups(desk: Operations, wanted: Filter, *, limit: int = 100) -> list[Group]:
    """Dead letters by what failed, the largest group first."""
    return await desk.letters.groups(wanted, limit=limit)


async def depths(desk: Operations) -> dict[str, int]:
    """How many letters lie in each dead-letter queue, by the ledger's word."""
    return await desk.letters.counts()


async def letter(desk: Operations, letter_id: UUID) -> Letter:
    """One letter, open or discarded. Raises Refusal."""
    found = await desk.letters.one(letter_id)
    if found is None:
        raise Refusal(f"no dead letter {letter_id} is known")
    return found


async def discard(desk: Operations, wanted: Filter, by: Actor) -> int:
    """Put letters aside, to be restored until retention; an empty filter is refused. Raises Refusal."""
    _not_everything(wanted, "discard")
    return await desk.letters.discard(wanted, by)


async def restore(desk: Operations, wanted: Filter, by: Actor) -> int:
    """Undo a discard. Raises Refusal."""
    _not_everything(wanted, "restore")
    return await desk.letters.restore(wanted, by)


async def verify(desk: Operations, request_id: UUID, by: Actor) -> None:
    """Look a dead booking's fate up again: its verification is due now. Raises Refusal."""
    await desk.letters.verify(request_id, by)


def _not_everything(wanted: Filter, what: str) -> None:
    if wanted.empty:
        raise Refusal(f"say which letters to {what}: an id, a group or a filter")


# -- replays ---------------------------------------------------------------------------------------------------------


async def prepare_replay(
    desk: Operations, wanted: Filter, by: Actor, *, rate: float | None = None
) -> Preview:
    """Freeze which letters are meant, and show them; `rate` in letters a second. Raises Refusal."""
    _not_everything(wanted, "replay")
    rate = desk.settings.dead.replay_rate_per_second if rate is None else rate
    if not 0 < rate <= 10_000:
        raise Refusal("a rate is more than 0 and at most 10000 letters a second")
    return await desk.replays.prepare(wanted, by, rate=rate)


async def start_replay(desk: Operations, replay_id: UUID, by: Actor) -> None:
    """Let it go: any running broker process carries it on. Raises Refusal."""
    await desk.replays.start(replay_id, by)


async def stop_replay(desk: Operations, replay_id: UUID, by: Actor) -> None:
    """What was not replayed yet stays dead. Raises Refusal."""
    await desk.replays.stop(replay_id, by)


async def resume_replay(desk: Operations, replay_id: UUID, by: Actor) -> None:
    """Go on with a stopped one, with another canary first. Raises Refusal."""
    await desk.replays.resume(replay_id, by)


async def replays(desk: Operations, *, limit: int = 50) -> list[ReplayProgress]:
    """The newest replays and how far they are."""
    return await desk.replays.progress(limit=limit)


async def replay(desk: Operations, replay_id: UUID) -> tuple[ReplayProgress, list[ReplayItem]]:
    """One replay and what became of its letters (at most 1000). Raises Refusal."""
    found = await desk.replays.progress(replay_id)
    if not found:
        raise Refusal(f"no replay {replay_id} is known")
    return found[0], await desk.replays.items(replay_id)


# -- reports and lanes -----------------------------------------------------------------------------------------------


async def reports(
    desk: Operations,
    *,
    supplier: str | None = None,
    state: str | None = None,
    jobcenter_code: str | None = None,
    kind: str | None = None,
    limit: int = 100,
) -> list[ReportRow]:
    """Failure reports, newest first."""
    return await desk.stories.reports(
        supplier=supplier, state=state, jobcenter_code=jobcenter_code, kind=kind, limit=limit
    )


async def report(desk: Operations, report_id: UUID) -> ReportStory:
    """A report and its attempts. Raises Refusal."""
    found = await desk.stories.report(report_id)
    if found is None:
        raise Refusal(f"no report {report_id} is known")
    return found


async def lanes(desk: Operations) -> list[LaneRow]:
    """Every lane and what stands on it."""
    return await desk.lanes.all()


async def lane(desk: Operations, supplier: str) -> LaneRow:
    """One lane. Raises Refusal."""
    for row in await lanes(desk):
        if row.lane.supplier == supplier:
            return row
    raise Refusal(f"no lane {supplier} is known")


async def pause(desk: Operations, supplier: str, by: Actor) -> Lane:
    """Hand nothing over to this supplier until somebody resumes its lane. Raises Refusal."""
    return await _tell(desk, supplier, Paused(by.name, by.reason), by, "lanes.pause")


async def resume(desk: Operations, supplier: str, by: Actor) -> Lane:
    """Let a paused lane go on, or a parked one probe at once. Raises Refusal."""
    return await _tell(desk, supplier, Resumed(by.name, by.reason), by, "lanes.resume")


async def send_test_report(desk: Operations, directory: Directory, supplier: str, by: Actor) -> UUID:
    """Put a report of an invented citizen on the lane: it goes the whole way that every report goes.

    Only to a supplier with whom such a citizen is agreed: no other could tell it from a real one. Raises Refusal.
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
    await desk.put_on_lane(report, by, "lanes.test")
    return report.report_id


async def _tell(desk: Operations, supplier: str, event: Event, by: Actor, action: str) -> Lane:
    await lane(desk, supplier)
    return await desk.tell_lane(supplier, event, by, action)


# -- stories, the log, people ----------------------------------------------------------------------------------------


async def trace(desk: Operations, any_id: UUID) -> WholeStory:
    """The whole story of a requestId, reportId or letter id. Raises Refusal."""
    story = await desk.stories.whole(any_id)
    if story is None:
        raise Refusal(f"the ledger knows no request, report or letter {any_id}")
    return story


async def log(
    desk: Operations,
    *,
    subject: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[LogEntry]:
    """What operators did, newest first; with `before`, only entries older than that one."""
    return await desk.log.entries(subject=subject, actor=actor, action=action, before=before, limit=limit)


async def note(desk: Operations, by: Actor, action: str, subject: str) -> None:
    """Write into the operators' log what was done outside the ledger: a log-in, the end of a session."""
    await desk.log.note(by, action, subject)


async def reveal(desk: Operations, thing: UUID, field: str, by: Actor) -> str:
    """One sealed field in the clear, logged first. Show it once. Raises Refusal."""
    return await desk.people.reveal(thing, field, by)


async def find(desk: Operations, cpr: Cpr, by: Actor) -> list[CitizenRecord]:
    """Everything of a citizen; logged by token. Raises Refusal."""
    return await desk.people.find(cpr, by)
