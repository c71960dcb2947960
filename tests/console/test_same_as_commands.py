"""Each act of the console and its command write the same line to the operators' log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from broker.ledger.operators.operations import Operations
from broker.ops import Actor, Filter
from tests.console.browser import Browser
from tests.ledger.dead import dead_booking, dead_reports, sealed_report
from tests.ledger.support import ANN, Sql
from tests.operators import Command

WHY = "as agreed by telephone"
Prepare = Callable[[Operations, Sql], Awaitable[UUID]]


async def a_letter(operations: Operations, sql: Sql) -> UUID:
    return await sealed_report(sql, operations.sealer)


async def a_discarded_one(operations: Operations, sql: Sql) -> UUID:
    [report_id] = await dead_reports(sql)
    await operations.letters.discard(Filter(ids=(report_id,)), Actor("setup", "setup"))
    return report_id


async def a_booking(operations: Operations, sql: Sql) -> UUID:
    await dead_reports(sql)
    return await dead_booking(sql)


async def a_replay(operations: Operations, sql: Sql) -> UUID:
    await dead_reports(sql)
    preview = await operations.replays.prepare(Filter(supplier="nordsoft"), Actor("setup", "setup"))
    await operations.replays.start(preview.replay_id, Actor("setup", "setup"))
    return preview.replay_id


async def a_stopped_replay(operations: Operations, sql: Sql) -> UUID:
    replay_id = await a_replay(operations, sql)
    await operations.replays.stop(replay_id, Actor("setup", "setup"))
    return replay_id


# Preparation, command, address and fields of the form; {id} is the id that the preparation returns.
ACTS: tuple[tuple[Prepare, str, str, dict[str, str]], ...] = (
    (a_letter, "lanes pause nordsoft", "/suppliers/nordsoft/pause", {}),
    (a_letter, "lanes resume nordsoft", "/suppliers/nordsoft/resume", {}),
    (a_letter, "dead discard {id}", "/dead/discard", {"ids": "{id}"}),
    (a_letter, "dead discard --supplier nordsoft", "/dead/discard", {"supplier": "nordsoft"}),
    (a_discarded_one, "dead restore {id}", "/dead/restore", {"ids": "{id}"}),
    (a_booking, "dead verify {id}", "/dead/{id}/verify", {}),
    (a_replay, "dead replays {id} --stop", "/replays/{id}/stop", {}),
    (a_stopped_replay, "dead replays {id} --resume", "/replays/{id}/resume", {}),
    (a_letter, "reveal {id} cpr", "/reveal/{id}", {"field": "cpr"}),
    (a_letter, "find", "/find", {"cpr": ANN}),
)


async def entry(sql: Sql, thing: UUID) -> dict[str, Any]:
    """The last line of the log, with the id replaced. Empties the tables for the next act."""
    row = await sql.fetchrow(
        "SELECT actor, action, reason, subject, details::text, citizen_token FROM operator_log"
        " WHERE actor <> 'setup' ORDER BY id DESC LIMIT 1"
    )
    assert row
    for table in ("reports", "lanes", "replay_items", "replays", "discarded_bookings", "requests"):
        await sql.execute(f"DELETE FROM {table}")  # noqa: S608  the names above
    return {key: str(value).replace(str(thing), "ID") for key, value in dict(row).items()}


@pytest.mark.parametrize(("before", "words", "path", "fields"), ACTS, ids=[act[1] for act in ACTS])
async def test_an_act_and_its_command_leave_the_same_line(
    browser: Browser,
    command: Command,
    operations: Operations,
    sql: Sql,
    before: Prepare,
    words: str,
    path: str,
    fields: dict[str, str],
) -> None:
    thing = await before(operations, sql)
    said = [word.format(id=thing) for word in words.split()]
    result = await command(*said, "--reason", WHY, "--as", "bo", stdin=f"{ANN}\n")
    assert result.exit_code == 0, result.output
    by_command = await entry(sql, thing)

    thing = await before(operations, sql)
    browser.log_in("operator", "privacy")
    sent = {name: value.format(id=thing) for name, value in fields.items()} | {"reason": WHY}
    page = await browser.post(path.format(id=thing), sent)
    assert page.status in (200, 303), page.text
    assert await entry(sql, thing) == by_command
    assert by_command["reason"] == WHY
