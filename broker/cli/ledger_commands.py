"""The commands for the whole ledger: purge what is over, move everything to the newest keys, see that nothing is lost.

Progress goes to standard error (a bar on a terminal, lines otherwise), results to standard output. Nothing personal
is in either.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from broker.cli.base import CommandFailed, Configuration, actor_of, as_json, asynchronously, show_rows
from broker.ledger.upkeep.conservation import Balance, Conservation, report_codes
from broker.ledger.upkeep.ledger_server import ledger_server
from broker.ledger.upkeep.reseal import KeyUse, Reseal, ResealProgress, ResealSummary
from broker.ledger.upkeep.retention import Retention
from broker.sealing import Sealer

ShowProgress = Callable[[ResealProgress], None]


@click.command("purge")
@click.option("--reason", "-m", default="by hand", show_default=True, help="Why; kept in the operators' log.")
@click.option("--as", "name", help="Who acts; otherwise the login name.")
@as_json
@click.pass_obj
@asynchronously
async def purge(configuration: Configuration, reason: str, name: str | None, as_json: bool) -> None:
    """Delete what has ended and is older than [retention] says; the broker does it daily by itself.

    Prints how many rows of each table are gone. What is still open is never deleted; may be cut off and repeated.
    """
    settings = configuration.settings()
    by = actor_of(name, reason)
    async with ledger_server(settings) as target:
        counts = await Retention(settings, target).purge(by)
    if counts is None:
        raise CommandFailed("another process is purging the ledger now")
    if as_json:
        click.echo(json.dumps(counts))
    else:
        show_rows([{"table": table, "deleted": count} for table, count in counts.items()])


@click.command("reseal")
@as_json
@click.pass_obj
@asynchronously
async def reseal(configuration: Configuration, as_json: bool) -> None:
    """Seal everything with keys.seal_with, and make citizens' tokens with the newest token key.

    Runs beside working brokers; may be cut off and repeated. Prints how many rows still name which key, and which
    keys may be retired: taken out of the settings of every process, once all processes run with the new ones.
    """
    settings = configuration.settings()
    with progress() as tell:
        async with ledger_server(settings) as target:
            done = await Reseal(settings, Sealer(settings.keys), target, tell).run()
    if as_json:
        click.echo(json.dumps(_facts(done)))
    else:
        _show(done)
    if done.broken:
        raise CommandFailed(
            f"{done.broken} rows do not open: their key is not configured, or they are damaged"
        )


@click.command("conserve")
@as_json
@click.pass_obj
@asynchronously
async def conserve(configuration: Configuration, as_json: bool) -> None:
    """Say whether every request and every report is accounted for; name the ids of those that are not.

    Accepted = answered + in flight + put aside; created = delivered + waiting + dead + discarded. Changes nothing.
    Exit code 1 if there is a gap.
    """
    settings = configuration.settings()
    codes = report_codes(configuration.directory(settings).suppliers)
    async with ledger_server(settings) as target:
        seen = await Conservation(settings, target, codes).read_balance()
    _show_balance(seen, as_json)
    if not seen.complete:
        raise CommandFailed(f"{len(seen.gaps)} cannot be accounted for; see: jobnet-broker trace ID")


def _show_balance(seen: Balance, as_json: bool) -> None:
    gaps = [{"gap": gap.kind, "id": str(gap.id or ""), "meaning": gap.meaning} for gap in seen.gaps]
    if as_json:
        click.echo(json.dumps(seen.figures() | {"named": gaps}))
        return
    show_rows([seen.figures()])
    show_rows(gaps)


def _facts(done: ResealSummary) -> dict[str, Any]:
    return {
        "written": done.written,
        "broken": done.broken,
        "may_retire": done.may_retire,
        "keys": [
            {
                "key_id": key.key_id,
                "kind": _kind(key),
                "configured": key.configured,
                "in_use": key.in_use,
                "rows": key.rows,
            }
            for key in done.keys
        ],
    }


def _show(done: ResealSummary) -> None:
    rows = [
        {"key": key.key_id, "kind": _kind(key), "rows": count, "named by": place}
        for key in done.keys
        for place, count in (key.rows or {"nothing": 0}).items()
    ]
    click.echo(f"{done.written} rows written again")
    show_rows(rows)
    click.echo(f"may be retired: {', '.join(done.may_retire) or 'none'}")


def _kind(key: KeyUse) -> str:
    return "sealing" if key.sealing else "token"


@contextmanager
def progress() -> Iterator[ShowProgress]:
    """Hears how far it is and shows it in the way that suits standard error."""
    if not sys.stderr.isatty():
        yield ProgressPrinter()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(far: ResealProgress) -> None:
            title = f"{far.phase} {far.table}"
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=far.total)
            bars.update(tasks[title], completed=far.looked_at, total=far.total)

        yield tell


class ProgressPrinter:
    """A line for each tenth of a table."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def __call__(self, far: ResealProgress) -> None:
        title = f"{far.phase} {far.table}"
        tenths = 10 * far.looked_at // max(far.total, 1)
        if self._told.get(title) != tenths:
            self._told[title] = tenths
            click.echo(f"{title}: {far.looked_at} of {far.total} rows", err=True)


LEDGER_COMMANDS: tuple[click.Command, ...] = (purge, reseal, conserve)
