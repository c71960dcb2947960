"""The commands overview and suppliers, and the paging of dead letters."""

from __future__ import annotations

import json
from typing import Any

from broker.cli.base import sparkline
from broker.ledger.operators.operations import Operations
from tests.ledger.dead import BO, dead_reports
from tests.ledger.support import Sql
from tests.operators import Command


async def parsed(command: Command, *words: object) -> Any:
    return json.loads((await command(*words, "--json")).stdout)


async def test_the_overview_prints_problems_and_exits_with_1(
    command: Command, operations: Operations, sql: Sql
) -> None:
    await dead_reports(sql, 2, cause="rejected")
    result = await command("overview")
    assert (result.exit_code, "no process is ready" in result.output, "rejected" in result.output) == (
        1,
        True,
        True,
    )
    facts = await parsed(command, "overview", "--hours", 1, "--step", 10)
    assert facts["problems"][0]["level"] == "bad"
    assert [(row["cause"], row["count"]) for row in facts["dead"]] == [("rejected", 2)]
    assert len(facts["flow"]["steps"]) == 6


async def test_suppliers_are_listed_with_figures_and_shown_with_history(
    command: Command, operations: Operations, sql: Sql
) -> None:
    await dead_reports(sql, 3)
    await operations.lanes.pause("nordsoft", BO)
    [row] = await parsed(command, "suppliers", "list")
    assert (row["supplier"], row["state"], row["dead"], row["attempts"]) == ("nordsoft", "paused", 3, 0)
    story = await parsed(command, "suppliers", "show", "nordsoft")
    assert [change["state"] for change in story["changes"]] == ["paused"]
    assert "nordsoft" in (await command("suppliers", "list")).output
    assert "the supplier is repaired" in (await command("suppliers", "show", "nordsoft")).output
    assert (await command("suppliers", "show", "nowhere")).exit_code == 1


async def test_a_list_of_letters_prints_the_cursor_of_the_next_page(command: Command, sql: Sql) -> None:
    ids = {str(letter_id) for letter_id in await dead_reports(sql, 5)}
    listed_ids: set[str] = set()
    words: list[object] = ["dead", "list", "--limit", 2, "--json"]
    for _ in range(3):
        result = await command(*words)
        listed_ids |= {row["letter_id"] for row in json.loads(result.stdout)}
        cursor = result.stderr.partition("--behind ")[2].strip()
        words = ["dead", "list", "--limit", 2, "--json", "--behind", cursor]
    assert (listed_ids, cursor) == (ids, "")
    assert (await command("dead", "list", "--behind", "nowhere")).exit_code == 1


async def test_letters_are_found_by_any_id(command: Command, sql: Sql) -> None:
    [report_id, _] = await dead_reports(sql, 2)
    [row] = await parsed(command, "dead", "list", "--about", report_id)
    assert row["letter_id"] == str(report_id)


async def test_groups_show_their_last_day(command: Command, sql: Sql) -> None:
    await dead_reports(sql, 2)
    [group] = await parsed(command, "dead", "groups")
    assert group["trend"] == [0] * 23 + [2]
    assert "█" in (await command("dead", "groups")).output


def test_bars_are_scaled_to_the_highest_count() -> None:
    assert sparkline((0, 1, 50, 100)) == " ▁▄█"
    assert sparkline((0, 0)) == "  "
    assert sparkline(()) == ""
