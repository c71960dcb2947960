"""What operators can do, as functions and as commands: stories, lanes, reveal, find, the log."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from broker import ops
from broker.ledger.operators.operations import Operations
from broker.ops import Actor, Filter, Refusal
from schemas.personal import Cpr
from tests.ledger.dead import BO, dead_booking, dead_reports, sealed_report
from tests.ledger.support import ANN, BEN, Sql
from tests.operators import Command


async def parsed(command: Command, *words: object, stdin: str = "") -> Any:
    result = await command(*words, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


class TestReveal:
    async def test_one_field_is_told_and_logged(self, operations: Operations, sql: Sql) -> None:
        report_id = await sealed_report(sql, operations.sealer)
        assert await operations.people.reveal(report_id, "cpr", BO) == ANN
        [entry] = await operations.log.entries(action="reveal")
        assert (entry.subject, entry.actor, entry.details["field"]) == (str(report_id), "bo", "cpr")
        assert ANN not in repr(entry)

    async def test_a_field_that_is_not_there_is_refused_with_those_that_are(
        self, operations: Operations, sql: Sql
    ) -> None:
        report_id = await sealed_report(sql, operations.sealer)
        with pytest.raises(Refusal, match="cpr, fejltekst") as refused:
            await operations.people.reveal(report_id, "name", BO)
        assert ANN not in str(refused.value)
        assert await operations.log.entries() == []

    async def test_content_that_does_not_open_is_refused(self, operations: Operations, sql: Sql) -> None:
        [report_id] = await dead_reports(sql)
        with pytest.raises(Refusal, match="does not open"):
            await operations.people.reveal(report_id, "cpr", BO)


class TestFind:
    async def test_a_citizen_is_found_and_the_look_up_is_logged_by_token(
        self, operations: Operations, sql: Sql
    ) -> None:
        report_id = await sealed_report(sql, operations.sealer)
        assert [found.id for found in await operations.people.find(Cpr(ANN), BO)] == [report_id]
        assert await operations.people.find(Cpr(BEN), BO) == []
        rows = await sql.fetch("SELECT * FROM operator_log ORDER BY id")
        assert [row["citizen_token"] for row in rows] == [
            operations.sealer.all_tokens(cpr.encode(), purpose="citizen")[0].digest for cpr in (ANN, BEN)
        ]
        assert ANN not in repr(rows)

    async def test_the_number_comes_from_standard_input(
        self, command: Command, operations: Operations, sql: Sql
    ) -> None:
        report_id = await sealed_report(sql, operations.sealer)
        found = await parsed(command, "find", "-m", "he asked", "--as", "bo", stdin=f"{ANN[:6]}-{ANN[6:]}\n")
        assert [row["id"] for row in found] == [str(report_id)]
        result = await command("find", "-m", "he asked", stdin="0101364\n")
        assert (result.exit_code, "0101364" in result.output) == (2, False)


class TestStories:
    async def test_any_id_of_a_story_tells_all_of_it(self, operations: Operations, sql: Sql) -> None:
        request_id = await dead_booking(sql)
        [report_id] = await dead_reports(sql)
        await sql.execute("UPDATE reports SET request_id = $1", request_id)
        await sql.execute("INSERT INTO attempts VALUES ($1, 1, $2, now(), 'x-1', false)", report_id, uuid4())
        await operations.letters.discard(Filter(ids=(report_id,)), BO)
        for any_id in (request_id, report_id):
            story = await operations.stories.whole(any_id)
            assert [each.request_id for each in story.requests] == [request_id]
            assert [len(each.attempts) for each in story.reports] == [1]
            assert {each.letter_id for each in story.letters} == {request_id, report_id}
            assert [each.action for each in story.log] == ["dead.discard"]

    async def test_what_nobody_knows_is_said(self, operations: Operations) -> None:
        with pytest.raises(Refusal, match="knows no request, report or letter"):
            await operations.stories.whole(uuid4())


class TestLanes:
    async def test_a_lane_is_paused_and_resumed_with_a_reason(self, operations: Operations, sql: Sql) -> None:
        await dead_reports(sql)
        assert (await operations.lanes.pause("nordsoft", BO)).state == "paused"
        row = await operations.lanes.one("nordsoft")
        assert (row.lane.state, row.lane.by, row.lane.reason) == ("paused", BO.name, BO.reason)
        assert (await operations.lanes.resume("nordsoft", BO)).state == "open"
        assert [e.action for e in await operations.log.entries(subject="nordsoft")] == [
            "lanes.resume",
            "lanes.pause",
        ]

    async def test_a_lane_that_is_not_there_is_not_paused(self, operations: Operations) -> None:
        with pytest.raises(Refusal, match="no lane nobody"):
            await operations.lanes.pause("nobody", BO)
        assert await operations.log.entries() == []


async def test_acts_on_all_letters_at_once_are_refused(operations: Operations) -> None:
    for act in (operations.letters.discard, operations.letters.restore, operations.replays.prepare):
        with pytest.raises(Refusal, match="say which letters"):
            await act(Filter(), BO)


class TestCommands:
    async def test_dead_letters_are_listed_grouped_and_shown(self, command: Command, sql: Sql) -> None:
        [report_id] = await dead_reports(sql)
        request_id = await dead_booking(sql)
        rows = await parsed(command, "dead", "list")
        assert {row["letter_id"] for row in rows} == {str(report_id), str(request_id)}
        groups = await parsed(command, "dead", "groups")
        assert sum(group["count"] for group in groups) == 2
        [row] = await parsed(command, "dead", "list", "--group", groups[0]["fingerprint"])
        shown = await parsed(command, "dead", "show", row["letter_id"])
        assert shown["fingerprint"] == groups[0]["fingerprint"]
        assert str(report_id) in (await command("dead", "list")).output

    async def test_discard_and_restore(self, command: Command, sql: Sql) -> None:
        [report_id] = await dead_reports(sql)
        assert "discarded: 1" in (await command("dead", "discard", report_id, "-m", "nonsense")).output
        assert await parsed(command, "dead", "list") == []
        assert len(await parsed(command, "dead", "list", "--discarded")) == 1
        assert "restored: 1" in (await command("dead", "restore", report_id, "-m", "a mistake")).output
        actors = {entry["actor"] for entry in await parsed(command, "log")}
        assert actors == {ops.login_name()}

    async def test_a_replay_asks_first_and_shows_its_progress(self, command: Command, sql: Sql) -> None:
        await dead_reports(sql, 2)
        refused = await command("dead", "replay", "--supplier", "nordsoft", "-m", "repaired", stdin="n\n")
        assert (refused.exit_code, "nothing was replayed" in refused.output) == (1, True)
        assert await parsed(command, "dead", "replays") == []
        started = await command("dead", "replay", "--supplier", "nordsoft", "-m", "repaired", "--yes")
        assert started.exit_code == 0
        [replay] = await parsed(command, "dead", "replays")
        assert (replay["state"], replay["total"], replay["waiting"]) == ("canary", 2, 2)
        stopped = await command("dead", "replays", replay["replay_id"], "--stop", "-m", "not yet")
        assert "stopped by" in stopped.output

    async def test_a_dead_booking_is_verified_and_not_replayed(self, command: Command, sql: Sql) -> None:
        request_id = await dead_booking(sql)
        result = await command("dead", "replay", request_id, "-m", "try again", "--yes")
        assert (result.exit_code, "never carried out late" in result.output) == (1, True)
        assert (await command("dead", "verify", request_id, "-m", "they are back")).exit_code == 0
        assert (await sql.fetchval("SELECT state FROM requests")) == "uncertain"

    async def test_reports_and_lanes(self, command: Command, sql: Sql) -> None:
        [report_id] = await dead_reports(sql)
        [row] = await parsed(command, "reports", "list", "--state", "dead")
        assert row["report_id"] == str(report_id)
        assert (await parsed(command, "reports", "show", report_id))["report"]["state"] == "dead"
        assert "paused" in (await command("lanes", "pause", "nordsoft", "-m", "they ask for it")).output
        assert (await parsed(command, "lanes", "show", "nordsoft"))["state"] == "paused"
        assert len(await parsed(command, "lanes", "list")) == 1
        assert "open" in (await command("lanes", "resume", "nordsoft", "-m", "they are back")).output

    @pytest.mark.parametrize(
        "words",
        [
            ("dead", "list"),
            ("reports", "list"),
            ("lanes", "list"),
            ("log",),
            ("dead", "replays"),
            ("dead", "groups"),
        ],
    )
    async def test_tables_and_json_hold_no_cpr_number(
        self, command: Command, operations: Operations, sql: Sql, words: tuple[str, ...]
    ) -> None:
        report_id = await sealed_report(sql, operations.sealer)
        await operations.people.reveal(report_id, "cpr", BO)
        await operations.people.find(Cpr(ANN), BO)
        for more in ((), ("--json",)):
            result = await command(*words, *more)
            assert result.exit_code == 0, result.output
            assert ANN not in result.output

    async def test_reveal_prints_the_field_once(
        self, command: Command, operations: Operations, sql: Sql
    ) -> None:
        report_id = await sealed_report(sql, operations.sealer)
        result = await command("reveal", report_id, "cpr", "-m", "the citizen called")
        assert result.stdout == f"{ANN}\n"
        assert ANN not in (await command("trace", report_id)).output

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("dead", "discard", "-m", "why"), "say which letters"),
            (("dead", "show", str(UUID(int=1))), "no dead letter"),
            (("dead", "discard", str(UUID(int=1)), "-m", " "), "a reason is needed"),
            (("dead", "discard", str(UUID(int=1)), "-m", "why", "--as", ""), "needs a name"),
            (("reports", "show", str(UUID(int=1))), "no report"),
            (("lanes", "show", "nobody"), "no lane"),
            (("trace", str(UUID(int=1))), "knows no request"),
            (("reveal", str(UUID(int=1)), "cpr", "-m", "why"), "nothing of id"),
        ],
    )
    async def test_a_refusal_is_one_sentence(
        self, command: Command, words: tuple[str, ...], said: str
    ) -> None:
        result = await command(*words)
        assert (result.exit_code, said in result.output) == (1, True), result.output
        assert "Traceback" not in result.output


def test_an_actor_has_a_login_name() -> None:
    assert Actor(ops.login_name(), "a test").name
