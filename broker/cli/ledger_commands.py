"""The commands over the whole ledger: purge old rows, reseal with the newest keys, check that nothing is lost.

Progress goes to standard error (a bar on a terminal, lines otherwise), results to standard output. Neither contains
personal data.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from broker.cli.base import (
    CommandFailed,
    Configuration,
    actor_of,
    asynchronously,
    json_option,
    operator_option,
    print_json,
    print_table,
)
from broker.ledger.upkeep.conservation import Balance, Conservation, report_codes
from broker.ledger.upkeep.ledger_server import ledger_server
from broker.ledger.upkeep.reseal import KeyUse, Reseal, ResealProgress, ResealSummary
from broker.ledger.upkeep.retention import Retention
from broker.sealing import Sealer

ShowProgress = Callable[[ResealProgress], None]


@click.command("purge")
@click.option(
    "--reason", "-m", default="by hand", show_default=True, help="Reason, kept in the operators' log."
)
@operator_option
@json_option
@click.pass_obj
@asynchronously
async def purge(configuration: Configuration, reason: str, name: str | None, as_json: bool) -> None:
    """Delete rows that have ended and are older than the [retention] settings. Running brokers do this daily.

    Prints the number of deleted rows per table. Open requests and reports are never deleted. Safe to interrupt and
    to repeat.
    """
    settings = configuration.settings()
    actor = actor_of(name, reason)
    async with ledger_server(settings) as server:
        counts = await Retention(settings, server).purge(actor)
    if counts is None:
        raise CommandFailed("another process is purging the ledger now")
    if as_json:
        print_json(counts)
    else:
        print_table([{"table": table, "deleted": count} for table, count in counts.items()])


@click.command("reseal")
@json_option
@click.pass_obj
@asynchronously
async def reseal(configuration: Configuration, as_json: bool) -> None:
    """Encrypt all sealed data with keys.seal_with, and compute citizens' tokens with the newest token key.

    Runs beside working brokers; safe to interrupt and to repeat. Prints how many rows use each key, and which keys
    may be retired: removed from the settings of every process, once all processes run with the new keys.
    """
    settings = configuration.settings()
    with progress_output() as print_progress:
        async with ledger_server(settings) as server:
            summary = await Reseal(settings, Sealer(settings.keys), server, print_progress).run()
    if as_json:
        print_json(_reseal_facts(summary))
    else:
        _print_reseal(summary)
    if summary.broken:
        raise CommandFailed(
            f"{summary.broken} rows cannot be decrypted: their key is not configured, or they are damaged"
        )


@click.command("conserve")
@json_option
@click.pass_obj
@asynchronously
async def conserve(configuration: Configuration, as_json: bool) -> None:
    """Check that every request and every report is accounted for, and print the ids of those that are not.

    Requests: accepted = answered + in flight + put aside. Reports: created = delivered + waiting + dead + discarded.
    Changes nothing. Exit code 1 if there is a gap.
    """
    settings = configuration.settings()
    codes = report_codes(configuration.directory(settings).suppliers)
    async with ledger_server(settings) as server:
        balance = await Conservation(settings, server, codes).read_balance()
    _print_balance(balance, as_json)
    if not balance.complete:
        raise CommandFailed(f"{len(balance.gaps)} cannot be accounted for; see: jobnet-broker trace ID")


def _print_balance(balance: Balance, as_json: bool) -> None:
    gaps = [{"gap": gap.kind, "id": str(gap.id or ""), "meaning": gap.meaning} for gap in balance.gaps]
    if as_json:
        print_json(balance.figures() | {"named": gaps})
        return
    print_table([balance.figures()])
    print_table(gaps)


def _reseal_facts(summary: ResealSummary) -> dict[str, Any]:
    return {
        "written": summary.written,
        "broken": summary.broken,
        "may_retire": summary.may_retire,
        "keys": [
            {
                "key_id": key.key_id,
                "kind": _kind(key),
                "configured": key.configured,
                "in_use": key.in_use,
                "rows": key.rows,
            }
            for key in summary.keys
        ],
    }


def _print_reseal(summary: ResealSummary) -> None:
    rows = [
        {"key": key.key_id, "kind": _kind(key), "rows": count, "named by": place}
        for key in summary.keys
        for place, count in (key.rows or {"nothing": 0}).items()
    ]
    click.echo(f"{summary.written} rows written again")
    print_table(rows)
    click.echo(f"may be retired: {', '.join(summary.may_retire) or 'none'}")


def _kind(key: KeyUse) -> str:
    return "sealing" if key.sealing else "token"


@contextmanager
def progress_output() -> Iterator[ShowProgress]:
    """A function that shows progress on standard error: as bars on a terminal, as lines otherwise."""
    if not sys.stderr.isatty():
        yield ProgressPrinter()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def update_bar(progress: ResealProgress) -> None:
            title = f"{progress.phase} {progress.table}"
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=progress.total)
            bars.update(tasks[title], completed=progress.looked_at, total=progress.total)

        yield update_bar


class ProgressPrinter:
    """Prints a line for each tenth of a table."""

    def __init__(self) -> None:
        self._printed_tenths: dict[str, int] = {}

    def __call__(self, progress: ResealProgress) -> None:
        title = f"{progress.phase} {progress.table}"
        tenths = 10 * progress.looked_at // max(progress.total, 1)
        if self._printed_tenths.get(title) != tenths:
            self._printed_tenths[title] = tenths
            click.echo(f"{title}: {progress.looked_at} of {progress.total} rows", err=True)


LEDGER_COMMANDS: tuple[click.Command, ...] = (purge, reseal, conserve)
