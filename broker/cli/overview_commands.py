"""The commands that tell how things are: the overview, and how each supplier fares. Skins over ops.py."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from broker import ops
from broker.cli.base import (
    CommandFailed,
    Configuration,
    as_json,
    asynchronously,
    limit,
    show,
    show_rows,
    told,
)

FIGURES = "supplier state waiting dead attempts p50_ms p95_ms delivered died share last_attempt_at"


@click.command()
@click.option("--hours", type=float, default=3.0, show_default=True, help="How far back the flow is told.")
@click.option("--step", type=int, default=1, show_default=True, help="Minutes in each step of the flow.")
@as_json
@click.pass_obj
@asynchronously
async def overview(configuration: Configuration, hours: float, step: int, as_json: bool) -> None:
    """Say in one glance whether all is well: processes, flow, lanes, what waits, what is dead, what is uncertain.

    Exit code 1 if something needs a person now.
    """
    async with ops.open_operations(configuration.settings()) as desk:
        seen = await desk.overviews.overview(hours=hours, step_minutes=step)
    if as_json:
        facts = asdict(seen) | {"problems": [asdict(problem) for problem in seen.problems]}
        click.echo(json.dumps(facts, default=str, ensure_ascii=False))
    else:
        _show(seen)
    if any(problem.level == "bad" for problem in seen.problems):
        raise CommandFailed("not well")


def _show(seen: ops.Overview) -> None:
    for problem in seen.problems:
        click.echo(f"{problem.level}: {problem.text}")
    click.echo("all is well" if not seen.problems else "")
    flow = {what: seen.flow.total(what) for what in ("requests", "answers", "created", "delivered", "dead")}
    show({what: _pairs(sums) for what, sums in flow.items() if sums}, False)
    for rows, columns in (
        (seen.workers, "pid host alive ready expected consuming problem heartbeat_at"),
        (seen.waiting, "supplier state cause count oldest_at next_due_at"),
        (seen.dead, "kind cause cause_class count last_hour oldest_at newest_at"),
        (seen.uncertain, "request_id type booking_system since verify_due_at verify_tries"),
    ):
        if rows:
            told(list(rows), False, columns)
    show_rows(
        [
            {
                "lane": row.lane.supplier,
                "state": row.lane.state.value,
                "reason": row.lane.reason or "",
                "waiting": row.waiting,
            }
            for row in seen.lanes
        ]
    )
    bookings = asdict(seen.bookings)
    gaps = {"gaps": seen.look.gaps, "looked_at": seen.look.at} if seen.look else {"looked_at": "never"}
    show(bookings | gaps, False)


def _pairs(sums: dict[str, int]) -> str:
    return ", ".join(f"{label or 'nobody'} {count}" for label, count in sums.items())


@click.group()
def suppliers() -> None:
    """How each supplier fares: lane, attempts, latency, what was delivered."""


@suppliers.command("list")
@as_json
@click.pass_obj
@asynchronously
async def suppliers_list(configuration: Configuration, as_json: bool) -> None:
    """List every supplier with the figures of its last day."""
    async with ops.open_operations(configuration.settings()) as desk:
        found = await desk.suppliers.figures()
    rows = [_figures(each) for each in found]
    if as_json:
        click.echo(json.dumps(rows, default=str, ensure_ascii=False))
        return
    show_rows([{name: "" if row[name] is None else row[name] for name in FIGURES.split()} for row in rows])


def _figures(each: ops.SupplierFigures) -> dict[str, Any]:
    facts = asdict(each)
    lane = facts.pop("lane")
    return {**lane.pop("lane"), **lane, **facts, "share": each.share}


@suppliers.command("show")
@click.argument("supplier")
@limit
@as_json
@click.pass_obj
@asynchronously
async def suppliers_show(configuration: Configuration, supplier: str, limit: int, as_json: bool) -> None:
    """Show one supplier: its lane and how it changed, what waits and why, its newest attempts."""
    async with ops.open_operations(configuration.settings()) as desk:
        found = await desk.suppliers.story(supplier, limit=limit)
    if as_json:
        show(asdict(found) | {"figures": _figures(found.figures)}, as_json)
        return
    show(_figures(found.figures), as_json)
    for title, rows, columns in (
        ("waits:", found.waiting, "state cause count oldest_at next_due_at"),
        ("changes of the lane:", found.changes, "at before state parked_until reason by attention"),
        (
            "attempts:",
            found.attempts,
            "finished_at report_id number verdict cause status what milliseconds probe",
        ),
    ):
        if rows:
            click.echo(title)
            told(list(rows), as_json, columns)


FIGURES_COMMANDS: tuple[click.Command, ...] = (overview, suppliers)
