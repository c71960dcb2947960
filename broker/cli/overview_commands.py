"""The commands `overview` and `suppliers`. They call ops.py."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from broker import ops
from broker.cli.base import (
    CommandFailed,
    json_option,
    limit_option,
    print_facts,
    print_json,
    print_rows,
    print_table,
    with_operations,
)
from broker.ops import Operations

FIGURES = "supplier state waiting dead attempts p50_ms p95_ms delivered died share last_attempt_at"


@click.command()
@click.option("--hours", type=float, default=3.0, show_default=True, help="Hours of message flow to include.")
@click.option("--step", type=int, default=1, show_default=True, help="Minutes in each step of the flow.")
@json_option
@with_operations
async def overview(operations: Operations, hours: float, step: int, as_json: bool) -> None:
    """Show whether all is well: processes, flow, lanes, waiting reports, dead letters, uncertain bookings.

    Exit code 1 if something needs a person now.
    """
    found = await operations.overviews.overview(hours=hours, step_minutes=step)
    if as_json:
        print_json(asdict(found) | {"problems": [asdict(problem) for problem in found.problems]})
    else:
        _print_overview(found)
    if any(problem.level == "bad" for problem in found.problems):
        raise CommandFailed("not well")


def _print_overview(found: ops.Overview) -> None:
    for problem in found.problems:
        click.echo(f"{problem.level}: {problem.text}")
    click.echo("all is well" if not found.problems else "")
    flow = {what: found.flow.total(what) for what in ("requests", "answers", "created", "delivered", "dead")}
    print_facts({what: _sums(sums) for what, sums in flow.items() if sums})
    for rows, columns in (
        (found.workers, "pid host alive ready expected consuming problem heartbeat_at"),
        (found.waiting, "supplier state cause count oldest_at next_due_at"),
        (found.dead, "kind cause cause_class count last_hour oldest_at newest_at"),
        (found.uncertain, "request_id type booking_system since verify_due_at verify_tries"),
    ):
        if rows:
            print_rows(rows, columns=columns)
    print_table(
        [
            {
                "lane": row.lane.supplier,
                "state": row.lane.state.value,
                "reason": row.lane.reason or "",
                "waiting": row.waiting,
            }
            for row in found.lanes
        ]
    )
    gaps = {"gaps": found.look.gaps, "looked_at": found.look.at} if found.look else {"looked_at": "never"}
    print_facts(asdict(found.bookings) | gaps)


def _sums(sums: dict[str, int]) -> str:
    return ", ".join(f"{label or 'none'} {count}" for label, count in sums.items())


@click.group()
def suppliers() -> None:
    """Figures of each supplier: lane, attempts, latency, delivered reports."""


@suppliers.command("list")
@json_option
@with_operations
async def suppliers_list(operations: Operations, as_json: bool) -> None:
    """List all suppliers with the figures of the last 24 hours."""
    rows = [_figures(figures) for figures in await operations.suppliers.figures()]
    if as_json:
        print_json(rows)
    else:
        print_table([{name: row[name] for name in FIGURES.split()} for row in rows])


def _figures(figures: ops.SupplierFigures) -> dict[str, Any]:
    facts = asdict(figures)
    lane = facts.pop("lane")
    return {**lane.pop("lane"), **lane, **facts, "share": figures.share}


@suppliers.command("show")
@click.argument("supplier")
@limit_option
@json_option
@with_operations
async def suppliers_show(operations: Operations, supplier: str, limit: int, as_json: bool) -> None:
    """Show one supplier: its lane and how it changed, waiting reports by cause, the newest attempts."""
    story = await operations.suppliers.story(supplier, limit=limit)
    if as_json:
        print_json(asdict(story) | {"figures": _figures(story.figures)})
        return
    print_facts(_figures(story.figures))
    for title, rows, columns in (
        ("waits:", story.waiting, "state cause count oldest_at next_due_at"),
        ("changes of the lane:", story.changes, "at before state parked_until reason by attention"),
        (
            "attempts:",
            story.attempts,
            "finished_at report_id number verdict cause status what milliseconds probe",
        ),
    ):
        if rows:
            click.echo(title)
            print_rows(rows, columns=columns)


OVERVIEW_COMMANDS: tuple[click.Command, ...] = (overview, suppliers)
