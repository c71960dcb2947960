"""The commands over dead letters and their replays. A skin over ops.py; nothing personal is shown."""

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
    actor_of,
    as_json,
    asynchronously,
    by,
    limit,
    show,
    sparkline,
    told,
    told_rows,
)
from broker.ops import Filter

WATCH_S = 0.5
"""How often the progress of a replay is looked at."""


def filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that concerns some of the dead letters."""
    for name, type_, what in (
        ("--before", click.DateTime(), "Last seen before this time (UTC)."),
        ("--after", click.DateTime(), "Last seen at this time or later (UTC)."),
        ("--error-code", int, "fejlkode: 2, 3 or 4."),
        ("--type", str, "Message type, such as booking.book.v1."),
        ("--jobcenter", str, "Jobcenterkode."),
        ("--fault", str, "Fault type of the contract."),
        ("--class", click.Choice(["message", "moment", "setup", "ours"]), "Whose fault."),
        ("--cause", str, "Cause, such as exhausted or invalid."),
        ("--supplier", str, "Supplier's name in the directory."),
        ("--kind", click.Choice(["report", "booking", "message"]), "What died."),
        ("--queue", str, "Dead-letter queue."),
        ("--group", str, "Fingerprint, as `dead groups` shows it."),
        ("--about", click.UUID, "Id of a letter, a report or a request: what is dead of it."),
    ):
        function = click.option(name, type=type_, help=what)(function)
    return function


def filter_of(given: dict[str, Any], ids: tuple[UUID, ...] = ()) -> Filter:
    """What the options and ids mean."""
    return Filter(
        queue=given["queue"],
        kind=given["kind"],
        supplier=given["supplier"],
        cause=given["cause"],
        cause_class=given["class"],
        fingerprint=given["group"],
        fault=given["fault"],
        jobcenter_code=given["jobcenter"],
        type=given["type"],
        error_code=given["error_code"],
        before=_utc(given["before"]),
        after=_utc(given["after"]),
        about=given["about"],
        ids=ids or None,
    )


def _utc(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at else None


@click.group()
def dead() -> None:
    """Dead letters: what could not be carried out or delivered, and what to do about it."""


@dead.command("list")
@filters
@click.option("--discarded", is_flag=True, help="Those that were put aside instead.")
@click.option("--behind", help="Go on where a list ended: the place that it named.")
@limit
@as_json
@click.pass_obj
@asynchronously
async def dead_list(
    configuration: Configuration,
    limit: int,
    as_json: bool,
    discarded: bool,
    behind: str | None,
    **given: Any,
) -> None:
    """List dead letters, newest first; when there are more, standard error says how to go on."""
    after = ops.PageCursor.read(behind) if behind else None
    async with ops.open_operations(configuration.settings()) as desk:
        page = await desk.letters.page(filter_of(given), limit=limit, after=after, discarded=discarded)
    if page.next:
        click.echo(f"more: --behind {page.next}", err=True)
    told(
        list(page.letters),
        as_json,
        "letter_id kind cause supplier jobcenter_code type attempts first_seen_at last_seen_at",
    )


@dead.command("groups")
@filters
@limit
@as_json
@click.pass_obj
@asynchronously
async def dead_groups(configuration: Configuration, limit: int, as_json: bool, **given: Any) -> None:
    """Group dead letters by what failed: queue, supplier, cause and fault type; the largest group first."""
    async with ops.open_operations(configuration.settings()) as desk:
        found = await desk.letters.groups(filter_of(given), limit=limit)
    columns = "fingerprint count last_hours queue cause cause_class fault first_seen_at last_seen_at"
    if as_json:
        told(found, as_json)
    else:
        told_rows([asdict(group) | {"last_hours": sparkline(group.trend)} for group in found], columns)


@dead.command("show")
@click.argument("letter_id", type=click.UUID)
@as_json
@click.pass_obj
@asynchronously
async def dead_show(configuration: Configuration, letter_id: UUID, as_json: bool) -> None:
    """Show one dead letter, without personal data."""
    async with ops.open_operations(configuration.settings()) as desk:
        found = await desk.letters.one(letter_id)
    show(asdict(found), as_json)


@dead.command("discard")
@click.argument("ids", type=click.UUID, nargs=-1)
@filters
@by
@click.pass_obj
@asynchronously
async def dead_discard(
    configuration: Configuration, ids: tuple[UUID, ...], name: str | None, reason: str, **given: Any
) -> None:
    """Put dead letters aside, by id or filter. They can be restored until retention deletes them."""
    actor = actor_of(name, reason)
    async with ops.open_operations(configuration.settings()) as desk:
        count = await desk.letters.discard(filter_of(given, ids), actor)
    click.echo(f"discarded: {count}; undo with: jobnet-broker dead restore")
    _perhaps_more(count)


@dead.command("restore")
@click.argument("ids", type=click.UUID, nargs=-1)
@filters
@by
@click.pass_obj
@asynchronously
async def dead_restore(
    configuration: Configuration, ids: tuple[UUID, ...], name: str | None, reason: str, **given: Any
) -> None:
    """Undo a discard, by id or filter."""
    actor = actor_of(name, reason)
    async with ops.open_operations(configuration.settings()) as desk:
        count = await desk.letters.restore(filter_of(given, ids), actor)
    click.echo(f"restored: {count}")
    _perhaps_more(count)


def _perhaps_more(count: int) -> None:
    if count >= ops.MOST_AT_ONCE:
        click.echo("there may be more: one step takes so many; repeat the command for the next", err=True)


@dead.command("verify")
@click.argument("request_id", type=click.UUID)
@by
@click.pass_obj
@asynchronously
async def dead_verify(configuration: Configuration, request_id: UUID, name: str | None, reason: str) -> None:
    """Look a dead booking's fate up again; a running broker does it now."""
    actor = actor_of(name, reason)
    async with ops.open_operations(configuration.settings()) as desk:
        await desk.letters.verify(request_id, actor)
    click.echo(f"verification is due; see: jobnet-broker trace {request_id}")


@dead.command("replay")
@click.argument("ids", type=click.UUID, nargs=-1)
@filters
@click.option(
    "--rate", type=float, help="Letters a second after the first; otherwise dead.replay_rate_per_second."
)
@click.option("--dry-run", is_flag=True, help="Only show what would be replayed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", type=float, default=0.0, help="Seconds to watch its progress; 0 does not.")
@as_json
@by
@click.pass_obj
@asynchronously
async def dead_replay(
    configuration: Configuration,
    ids: tuple[UUID, ...],
    rate: float | None,
    dry_run: bool,
    yes: bool,
    wait: float,
    as_json: bool,
    name: str | None,
    reason: str,
    **given: Any,
) -> None:
    """Replay dead letters, by id or filter: exactly those of the preview, one first, then the rest at a rate.

    Running brokers carry it on; it stops by itself when the same failure returns. Exit code 1 if it stopped.
    """
    actor = actor_of(name, reason)
    async with ops.open_operations(configuration.settings()) as desk:
        preview = await desk.replays.prepare(filter_of(given, ids), actor, rate=rate)
        show({**asdict(preview), "sample": [str(each.letter_id) for each in preview.sample]}, as_json)
        if dry_run:
            return
        if not yes and not click.confirm(f"replay these {preview.count}?", err=True):
            raise CommandFailed("nothing was replayed")
        await desk.replays.start(preview.replay_id, actor)
        progress = await _watched(desk, preview.replay_id, wait)
    show(asdict(progress), as_json)
    if progress.state == "stopped":
        raise CommandFailed(f"stopped: {progress.stopped_because}")


async def _watched(desk: ops.Operations, replay_id: UUID, seconds: float) -> ops.ReplayProgress:
    """Its progress when it has ended, or when the seconds are over."""
    loop = asyncio.get_running_loop()
    until, before = loop.time() + seconds, ""
    while True:
        progress, _ = await desk.replays.one(replay_id)
        now = (
            f"{progress.state}: {progress.replayed} of {progress.total} replayed, {progress.skipped} skipped"
        )
        if seconds and now != before:
            click.echo(now, err=True)
        before = now
        if progress.ended_at or loop.time() >= until:
            return progress
        await asyncio.sleep(WATCH_S)


@dead.command("replays")
@click.argument("replay_id", type=click.UUID, required=False)
@click.option("--stop", is_flag=True, help="Stop it; what waits stays dead.")
@click.option("--resume", is_flag=True, help="Go on with a stopped one, with another first.")
@click.option("--reason", "-m", default="", help="Why; needed to stop or resume.")
@click.option("--as", "name", help="Who acts; otherwise the login name.")
@as_json
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
    """List replays; with an id show one and what became of each letter, stop it or resume it."""
    if (stop or resume) and (replay_id is None or (stop and resume)):
        raise Mistake("say which replay to stop or to resume")
    async with ops.open_operations(configuration.settings()) as desk:
        if replay_id is None:
            columns = "replay_id name state total replayed skipped waiting actor created_at stopped_because"
            told(await desk.replays.progress(), as_json, columns)
            return
        if stop:
            await desk.replays.stop(replay_id, actor_of(name, reason))
        if resume:
            await desk.replays.resume(replay_id, actor_of(name, reason))
        progress, items = await desk.replays.one(replay_id)
    if as_json:
        show({**asdict(progress), "items": [asdict(item) for item in items]}, as_json)
        return
    show(asdict(progress), as_json)
    told(items, as_json)
