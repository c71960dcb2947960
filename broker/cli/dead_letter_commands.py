"""The commands over dead letters and replays. They call ops.py; nothing personal is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click

from broker import ops
from broker.cli.base import (
    CommandFailed,
    Configuration,
    Mistake,
    acting,
    actor_of,
    asynchronously,
    json_option,
    limit_option,
    operator_option,
    print_columns,
    print_facts,
    print_rows,
    sparkline,
    with_operations,
)
from broker.ops import Actor, Filter, Operations

WATCH_S = 0.5
"""Seconds between two readings of a replay's progress."""
LETTERS = "letter_id kind cause supplier jobcenter_code type attempts first_seen_at last_seen_at"
GROUPS = "fingerprint count last_hours queue cause cause_class fault first_seen_at last_seen_at"
REPLAYS = "replay_id name state total replayed skipped waiting actor created_at stopped_because"


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that select dead letters."""
    for name, type_, meaning in (
        ("--before", click.DateTime(), "Last seen before this time (UTC)."),
        ("--after", click.DateTime(), "Last seen at this time or later (UTC)."),
        ("--error-code", int, "fejlkode: 2, 3 or 4."),
        ("--type", str, "Message type, for example booking.book.v1."),
        ("--jobcenter", str, "Jobcenterkode."),
        ("--fault", str, "Fault type of the contract."),
        (
            "--class",
            click.Choice(["message", "moment", "setup", "ours"]),
            "What is at fault: the message, a temporary failure, the supplier's setup, or the broker itself.",
        ),
        ("--cause", str, "Cause, for example exhausted or invalid."),
        ("--supplier", str, "Supplier's name in the directory."),
        ("--kind", click.Choice(["report", "booking", "message"]), "Kind of dead letter."),
        ("--queue", str, "Dead-letter queue."),
        ("--group", str, "Fingerprint of a group, printed by `dead groups`."),
        ("--about", click.UUID, "Id of a letter, a report or a request."),
    ):
        function = click.option(name, type=type_, help=meaning)(function)
    return function


def filter_of(options: dict[str, Any], ids: tuple[UUID, ...] = ()) -> Filter:
    """The filter for the values of `filter_options` and the ids."""
    return Filter(
        queue=options["queue"],
        kind=options["kind"],
        supplier=options["supplier"],
        cause=options["cause"],
        cause_class=options["class"],
        fingerprint=options["group"],
        fault=options["fault"],
        jobcenter_code=options["jobcenter"],
        type=options["type"],
        error_code=options["error_code"],
        before=_utc(options["before"]),
        after=_utc(options["after"]),
        about=options["about"],
        ids=ids or None,
    )


def _utc(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at else None


@click.group()
def dead() -> None:
    """Dead letters: requests and reports that failed for good."""


@dead.command("list")
@filter_options
@click.option("--discarded", is_flag=True, help="List discarded letters instead.")
@click.option("--behind", metavar="CURSOR", help="Continue after this cursor (printed when there are more).")
@limit_option
@json_option
@with_operations
async def dead_list(
    operations: Operations, limit: int, as_json: bool, discarded: bool, behind: str | None, **options: Any
) -> None:
    """List dead letters, newest first. If there are more, standard error prints `more: --behind CURSOR`."""
    after = ops.PageCursor.read(behind) if behind else None
    page = await operations.letters.page(filter_of(options), limit=limit, after=after, discarded=discarded)
    if page.next:
        click.echo(f"more: --behind {page.next}", err=True)
    print_rows(page.letters, as_json, LETTERS)


@dead.command("groups")
@filter_options
@limit_option
@json_option
@with_operations
async def dead_groups(operations: Operations, limit: int, as_json: bool, **options: Any) -> None:
    """Count dead letters by queue, supplier, cause and fault type, the largest group first."""
    groups = await operations.letters.groups(filter_of(options), limit=limit)
    if as_json:
        print_rows(groups, as_json)
    else:
        print_columns([asdict(group) | {"last_hours": sparkline(group.trend)} for group in groups], GROUPS)


@dead.command("show")
@click.argument("letter_id", type=click.UUID)
@json_option
@with_operations
async def dead_show(operations: Operations, letter_id: UUID, as_json: bool) -> None:
    """Show one dead letter, without personal data."""
    print_facts(asdict(await operations.letters.one(letter_id)), as_json)


@dead.command("discard")
@click.argument("ids", type=click.UUID, nargs=-1)
@filter_options
@acting
@with_operations
async def dead_discard(operations: Operations, ids: tuple[UUID, ...], actor: Actor, **options: Any) -> None:
    """Discard dead letters, by id or filter. They can be restored until retention deletes them."""
    count = await operations.letters.discard(filter_of(options, ids), actor)
    click.echo(f"discarded: {count}; undo with: jobnet-broker dead restore")
    _hint_at_more(count)


@dead.command("restore")
@click.argument("ids", type=click.UUID, nargs=-1)
@filter_options
@acting
@with_operations
async def dead_restore(operations: Operations, ids: tuple[UUID, ...], actor: Actor, **options: Any) -> None:
    """Undo a discard, by id or filter."""
    count = await operations.letters.restore(filter_of(options, ids), actor)
    click.echo(f"restored: {count}")
    _hint_at_more(count)


def _hint_at_more(count: int) -> None:
    if count >= ops.MOST_AT_ONCE:
        click.echo(
            f"there may be more: one command takes at most {ops.MOST_AT_ONCE}; repeat it for the rest",
            err=True,
        )


@dead.command("verify")
@click.argument("request_id", type=click.UUID)
@acting
@with_operations
async def dead_verify(operations: Operations, request_id: UUID, actor: Actor) -> None:
    """Look up the outcome of a dead booking again at its booking system. A running broker does it now."""
    await operations.letters.verify(request_id, actor)
    click.echo(f"verification is due; see: jobnet-broker trace {request_id}")


@dead.command("replay")
@click.argument("ids", type=click.UUID, nargs=-1)
@filter_options
@click.option(
    "--rate",
    type=float,
    show_default="dead.replay_rate_per_second",
    help="Letters per second after the canary.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be replayed.")
@click.option("--yes", is_flag=True, help="Skip the confirmation.")
@click.option(
    "--wait",
    type=float,
    default=0.0,
    show_default=True,
    help="Seconds to follow the progress; 0 returns at once.",
)
@json_option
@acting
@with_operations
async def dead_replay(
    operations: Operations,
    ids: tuple[UUID, ...],
    rate: float | None,
    dry_run: bool,
    yes: bool,
    wait: float,
    as_json: bool,
    actor: Actor,
    **options: Any,
) -> None:
    """Replay dead letters, by id or filter: exactly the letters of the preview, a canary first, then the rest.

    Running brokers do the work. The replay stops by itself if the same failure returns; exit code 1 if it stopped.
    """
    preview = await operations.replays.prepare(filter_of(options, ids), actor, rate=rate)
    print_facts({**asdict(preview), "sample": [str(letter.letter_id) for letter in preview.sample]}, as_json)
    if dry_run:
        return
    if not yes and not click.confirm(f"replay these {preview.count}?", err=True):
        raise CommandFailed("nothing was replayed")
    await operations.replays.start(preview.replay_id, actor)
    progress = await _followed(operations, preview.replay_id, wait)
    print_facts(asdict(progress), as_json)
    if progress.state == "stopped":
        raise CommandFailed(f"stopped: {progress.stopped_because}")


async def _followed(operations: Operations, replay_id: UUID, seconds: float) -> ops.ReplayProgress:
    """The progress when the replay has ended or `seconds` are over. Prints each change to standard error."""
    loop = asyncio.get_running_loop()
    until, printed = loop.time() + seconds, ""
    while True:
        progress, _ = await operations.replays.one(replay_id)
        line = (
            f"{progress.state}: {progress.replayed} of {progress.total} replayed, {progress.skipped} skipped"
        )
        if seconds and line != printed:
            click.echo(line, err=True)
        printed = line
        if progress.ended_at or loop.time() >= until:
            return progress
        await asyncio.sleep(WATCH_S)


@dead.command("replays")
@click.argument("replay_id", type=click.UUID, required=False)
@click.option("--stop", is_flag=True, help="Stop the replay; remaining letters stay dead.")
@click.option("--resume", is_flag=True, help="Continue a stopped replay, with a new canary first.")
@click.option("--reason", "-m", default="", help="Reason; required with --stop and --resume.")
@operator_option
@json_option
@click.pass_obj
@asynchronously
async def dead_replays(
    configuration: Configuration,
    replay_id: UUID | None,
    stop: bool,
    resume: bool,
    reason: str,
    name: str | None,
    as_json: bool,
) -> None:
    """List replays. With an id: show the replay and the state of each letter, stop it or resume it."""
    if (stop or resume) and (replay_id is None or (stop and resume)):
        raise Mistake("say which replay to stop or to resume")
    async with ops.open_operations(configuration.settings()) as operations:
        if replay_id is None:
            print_rows(await operations.replays.progress(), as_json, REPLAYS)
            return
        if stop:
            await operations.replays.stop(replay_id, actor_of(name, reason))
        if resume:
            await operations.replays.resume(replay_id, actor_of(name, reason))
        progress, items = await operations.replays.one(replay_id)
    if as_json:
        print_facts({**asdict(progress), "items": [asdict(item) for item in items]}, as_json)
        return
    print_facts(asdict(progress))
    print_rows(items)
