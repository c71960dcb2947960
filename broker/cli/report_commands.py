"""The commands of operators beside those over dead letters: reports, lanes, stories, the log, reveal, find.

Who acts is `--as NAME` or the login name; why is always asked for. A CPR number is read from standard input, never
an argument: command lines are seen by everybody on the machine.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any
from uuid import UUID

import click

from broker import ops
from broker.cli.base import (
    Configuration,
    Mistake,
    actor_of,
    as_json,
    asynchronously,
    by,
    limit,
    short,
    show,
    show_rows,
    told,
)
from broker.cli.dead_letter_commands import dead
from schemas.personal import Cpr

# -- reports and lanes -----------------------------------------------------------------------------------------------


@click.group()
def reports() -> None:
    """Failure reports to suppliers."""


@reports.command("list")
@click.option("--supplier", help="Supplier's name in the directory.")
@click.option("--state", help="joining, waiting, handed, delivering, delivered, dead or discarded.")
@click.option("--jobcenter", help="Jobcenterkode.")
@click.option("--kind", type=click.Choice(["automatic", "citizen"]), help="Who reported it.")
@limit
@as_json
@click.pass_obj
@asynchronously
async def reports_list(
    configuration: Configuration,
    supplier: str | None,
    state: str | None,
    jobcenter: str | None,
    kind: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List failure reports, newest first."""
    async with ops.open_operations(configuration.settings()) as desk:
        found = await desk.stories.reports(
            supplier=supplier, state=state, jobcenter_code=jobcenter, kind=kind, limit=limit
        )
    told(
        found,
        as_json,
        "report_id kind supplier jobcenter_code error_code count state attempts cause created_at",
    )


@reports.command("show")
@click.argument("report_id", type=click.UUID)
@as_json
@click.pass_obj
@asynchronously
async def reports_show(configuration: Configuration, report_id: UUID, as_json: bool) -> None:
    """Show a failure report and every attempt to deliver it, without personal data."""
    async with ops.open_operations(configuration.settings()) as desk:
        found = await desk.stories.report(report_id)
    if as_json:
        show(asdict(found), as_json)
        return
    show(asdict(found.report), as_json)
    told(
        list(found.attempts),
        as_json,
        "number started_at verdict cause status fault what milliseconds counted probe",
    )


@click.group()
def lanes() -> None:
    """Suppliers' lanes: open, parked, probing or paused."""


@lanes.command("list")
@as_json
@click.pass_obj
@asynchronously
async def lanes_list(configuration: Configuration, as_json: bool) -> None:
    """List every lane and what stands on it."""
    async with ops.open_operations(configuration.settings()) as desk:
        rows = await desk.lanes.all()
    if as_json:
        click.echo(json.dumps([_flat(row) for row in rows], default=str))
        return
    show_rows([{**_lane(row), "waiting": row.waiting, "delivering": row.delivering} for row in rows])


def _flat(row: ops.LaneRow) -> dict[str, Any]:
    facts = asdict(row)
    return {**facts.pop("lane"), **facts}


def _lane(row: ops.LaneRow) -> dict[str, Any]:
    lane = row.lane
    names = ("supplier", "state", "parked_until", "failures", "reason", "by", "attention")
    return {name: short(getattr(lane, name)) for name in names}


@lanes.command("show")
@click.argument("supplier")
@as_json
@click.pass_obj
@asynchronously
async def lanes_show(configuration: Configuration, supplier: str, as_json: bool) -> None:
    """Show one lane."""
    async with ops.open_operations(configuration.settings()) as desk:
        row = await desk.lanes.one(supplier)
    facts = asdict(row)
    show({**facts.pop("lane"), **facts}, as_json)


def _lane_command(name: str, help_: str) -> None:
    @lanes.command(name, help=help_)
    @click.argument("supplier")
    @by
    @click.pass_obj
    @asynchronously
    async def command(configuration: Configuration, supplier: str, reason: str, **who: str | None) -> None:
        actor = actor_of(who["name"], reason)
        async with ops.open_operations(configuration.settings()) as desk:
            act = desk.lanes.pause if name == "pause" else desk.lanes.resume
            lane = await act(supplier, actor)
        click.echo(f"{supplier}: {lane.state}")


@lanes.command("test")
@click.argument("supplier")
@by
@click.pass_obj
@asynchronously
async def lanes_test(configuration: Configuration, supplier: str, name: str | None, reason: str) -> None:
    """Send SUPPLIER a test report of the invented citizen that is agreed with it (directory: test_cpr)."""
    actor, settings = actor_of(name, reason), configuration.settings()
    directory = configuration.directory(settings)
    async with ops.open_operations(settings) as desk:
        report_id = await ops.send_test_report(desk, directory, supplier, actor)
    click.echo(f"{supplier}: {report_id} is due; see: jobnet-broker trace {report_id}")


_lane_command("pause", "Hand nothing over to this supplier until its lane is resumed.")
_lane_command("resume", "Let a paused lane go on, or a parked one probe at once.")


# -- stories, the log, people ----------------------------------------------------------------------------------------


@click.command()
@click.argument("any_id", type=click.UUID)
@as_json
@click.pass_obj
@asynchronously
async def trace(configuration: Configuration, any_id: UUID, as_json: bool) -> None:
    """Tell the whole story of a request, report or letter: answer, report, attempts, dead letter, operators' acts."""
    async with ops.open_operations(configuration.settings()) as desk:
        story = await desk.stories.whole(any_id)
    if as_json:
        show(asdict(story), as_json)
        return
    for title, rows, columns in (
        ("request", story.requests, ""),
        ("report", [each.report for each in story.reports], ""),
    ):
        for row in rows:
            click.echo(f"{title}:")
            show({k: v for k, v in asdict(row).items() if not columns or k in columns}, as_json)
    for title, table in (
        ("attempts:", [attempt for each in story.reports for attempt in each.attempts]),
        ("dead letters:", list(story.letters)),
        ("replays:", list(story.replays)),
        ("operators:", list(story.log)),
    ):
        if table:
            click.echo(title)
            told(table, as_json)


@click.command()
@click.option("--subject", help="An id or a supplier.")
@click.option("--actor", help="Who.")
@click.option("--action", help="Such as dead.discard or reveal.")
@limit
@as_json
@click.pass_obj
@asynchronously
async def log(
    configuration: Configuration,
    subject: str | None,
    actor: str | None,
    action: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show what operators did, newest first: who, when, why."""
    async with ops.open_operations(configuration.settings()) as desk:
        entries = await desk.log.entries(subject=subject, actor=actor, action=action, limit=limit)
    told(entries, as_json)


@click.command()
@click.argument("thing", type=click.UUID)
@click.argument("field")
@by
@click.pass_obj
@asynchronously
async def reveal(
    configuration: Configuration, thing: UUID, field: str, name: str | None, reason: str
) -> None:
    """Print one sealed FIELD (such as cpr or fejltekst) of a report, message or request; it is logged first."""
    actor = actor_of(name, reason)
    async with ops.open_operations(configuration.settings()) as desk:
        value = await desk.people.reveal(thing, field, actor)
    click.echo(value)


@click.command()
@by
@as_json
@click.pass_obj
@asynchronously
async def find(configuration: Configuration, as_json: bool, name: str | None, reason: str) -> None:
    """Find everything of a citizen, whose CPR number is read from standard input; logged by token."""
    actor = actor_of(name, reason)
    try:
        cpr = Cpr(sys.stdin.readline(100).strip().replace("-", ""))
    except ValueError as error:
        raise Mistake(f"standard input: {error}") from None
    async with ops.open_operations(configuration.settings()) as desk:
        found = await desk.people.find(cpr, actor)
    told(found, as_json)


COMMANDS = (dead, reports, lanes, trace, log, reveal, find)
