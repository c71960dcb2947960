"""The other commands of operators: reports, lanes, trace, the operators' log, reveal, find.

Acts require a reason; the operator is `--as NAME` or the login name. A CPR number is read from standard input, never
taken as an argument, because all users of a machine can see command lines.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any
from uuid import UUID

import click

from broker import ops
from broker.cli.base import (
    Configuration,
    Mistake,
    acting,
    asynchronously,
    json_option,
    limit_option,
    print_facts,
    print_json,
    print_rows,
    print_table,
    shown,
    with_operations,
)
from broker.cli.dead_letter_commands import dead
from broker.ops import Actor, Operations
from schemas.personal import Cpr

REPORTS = "report_id kind supplier jobcenter_code error_code count state attempts cause created_at"
ATTEMPTS = "number started_at verdict cause status fault what milliseconds counted probe"
LANES = "supplier state parked_until failures reason by attention"

# -- reports and lanes -----------------------------------------------------------------------------------------------


@click.group()
def reports() -> None:
    """Failure reports to suppliers."""


@reports.command("list")
@click.option("--supplier", help="Supplier's name in the directory.")
@click.option("--state", help="joining, waiting, handed, delivering, delivered, dead or discarded.")
@click.option("--jobcenter", help="Jobcenterkode.")
@click.option(
    "--kind", type=click.Choice(["automatic", "citizen"]), help="Made by the broker or by a citizen."
)
@limit_option
@json_option
@with_operations
async def reports_list(
    operations: Operations,
    supplier: str | None,
    state: str | None,
    jobcenter: str | None,
    kind: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List failure reports, newest first."""
    rows = await operations.stories.reports(
        supplier=supplier, state=state, jobcenter_code=jobcenter, kind=kind, limit=limit
    )
    print_rows(rows, as_json, REPORTS)


@reports.command("show")
@click.argument("report_id", type=click.UUID)
@json_option
@with_operations
async def reports_show(operations: Operations, report_id: UUID, as_json: bool) -> None:
    """Show a failure report and all attempts to deliver it, without personal data."""
    story = await operations.stories.report(report_id)
    if as_json:
        print_json(asdict(story))
        return
    print_facts(asdict(story.report))
    print_rows(story.attempts, columns=ATTEMPTS)


@click.group()
def lanes() -> None:
    """Suppliers' lanes: open, parked, probing or paused."""


@lanes.command("list")
@json_option
@with_operations
async def lanes_list(operations: Operations, as_json: bool) -> None:
    """List all lanes and the number of reports on each."""
    rows = await operations.lanes.all()
    if as_json:
        print_json([_lane_facts(row) for row in rows])
    else:
        print_table([{**_lane(row), "waiting": row.waiting, "delivering": row.delivering} for row in rows])


def _lane_facts(row: ops.LaneRow) -> dict[str, Any]:
    facts = asdict(row)
    return {**facts.pop("lane"), **facts}


def _lane(row: ops.LaneRow) -> dict[str, Any]:
    return {name: shown(getattr(row.lane, name)) for name in LANES.split()}


@lanes.command("show")
@click.argument("supplier")
@json_option
@with_operations
async def lanes_show(operations: Operations, supplier: str, as_json: bool) -> None:
    """Show one lane."""
    print_facts(_lane_facts(await operations.lanes.one(supplier)), as_json)


@lanes.command("pause")
@click.argument("supplier")
@acting
@with_operations
async def lanes_pause(operations: Operations, supplier: str, actor: Actor) -> None:
    """Stop handing over reports to SUPPLIER until its lane is resumed."""
    lane = await operations.lanes.pause(supplier, actor)
    click.echo(f"{supplier}: {lane.state}")


@lanes.command("resume")
@click.argument("supplier")
@acting
@with_operations
async def lanes_resume(operations: Operations, supplier: str, actor: Actor) -> None:
    """Reopen a paused lane, or let a parked lane send a probe at once."""
    lane = await operations.lanes.resume(supplier, actor)
    click.echo(f"{supplier}: {lane.state}")


@lanes.command("test")
@click.argument("supplier")
@acting
@click.pass_obj
@asynchronously
async def lanes_test(configuration: Configuration, supplier: str, actor: Actor) -> None:
    """Send SUPPLIER a test report about the fictitious citizen agreed with it (directory: test_cpr)."""
    settings = configuration.settings()
    directory = configuration.directory(settings)
    async with ops.open_operations(settings) as operations:
        report_id = await ops.send_test_report(operations, directory, supplier, actor)
    click.echo(f"{supplier}: {report_id} is due; see: jobnet-broker trace {report_id}")


# -- trace, the operators' log, personal data ------------------------------------------------------------------------


@click.command()
@click.argument("any_id", type=click.UUID)
@json_option
@with_operations
async def trace(operations: Operations, any_id: UUID, as_json: bool) -> None:
    """Show everything about one id: request, answer, report, attempts, dead letters, replays, operators' acts."""
    story = await operations.stories.whole(any_id)
    if as_json:
        print_json(asdict(story))
        return
    for title, records in (
        ("request:", story.requests),
        ("report:", [part.report for part in story.reports]),
    ):
        for record in records:
            click.echo(title)
            print_facts(asdict(record))
    for title, rows in (
        ("attempts:", [attempt for part in story.reports for attempt in part.attempts]),
        ("dead letters:", story.letters),
        ("replays:", story.replays),
        ("operators:", story.log),
    ):
        if rows:
            click.echo(title)
            print_rows(rows)


@click.command()
@click.option("--subject", help="Id or supplier that was acted on.")
@click.option("--actor", help="Operator name.")
@click.option("--action", help="Action, for example dead.discard or reveal.")
@limit_option
@json_option
@with_operations
async def log(
    operations: Operations,
    subject: str | None,
    actor: str | None,
    action: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show what operators did, newest first, with name, time and reason."""
    print_rows(
        await operations.log.entries(subject=subject, actor=actor, action=action, limit=limit), as_json
    )


@click.command()
@click.argument("thing", metavar="ID", type=click.UUID)
@click.argument("field")
@acting
@with_operations
async def reveal(operations: Operations, thing: UUID, field: str, actor: Actor) -> None:
    """Print one sealed FIELD (for example cpr or fejltekst) of a report, message or request. Logged first."""
    click.echo(await operations.people.reveal(thing, field, actor))


@click.command()
@acting
@json_option
@click.pass_obj
@asynchronously
async def find(configuration: Configuration, as_json: bool, actor: Actor) -> None:
    """Find everything about a citizen. Reads the CPR number from standard input; the log holds a token of it."""
    try:
        cpr = Cpr(sys.stdin.readline(100).strip().replace("-", ""))
    except ValueError as error:
        raise Mistake(f"standard input: {error}") from None
    async with ops.open_operations(configuration.settings()) as operations:
        records = await operations.people.find(cpr, actor)
    print_rows(records, as_json)


REPORT_COMMANDS: tuple[click.Command, ...] = (dead, reports, lanes, trace, log, reveal, find)
