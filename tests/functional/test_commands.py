"""The command `jobnet-broker` as people use it: helpful, with honest exit codes, and never a traceback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from sandbox.servers import Sandbox
from schemas.ids import invitation_of
from tests.functional.running_broker import Frontend, RunningBroker, audit, booking, layout, request
from tests.support import poll

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_help_tells_every_command(shared: RunningBroker) -> None:
    code, out, _ = await shared.call("--help")
    assert code == 0
    for command in ("run", "topology", "ledger", "config", "send", "trace", "status", "open"):
        assert command in out


@pytest.mark.parametrize(
    ("words", "changes", "code", "said"),
    [
        (("run",), {"JOBNET_BROKER__HTTP__TOTAL_TIMEOUT_SECONDS": "soon"}, 2, "http.total_timeout_seconds"),
        (("run",), {"JOBNET_BROKER__HTTP__TOTAL_TIMEOUT_SECONDS": "60"}, 2, "none could be sent"),
        (("config", "check"), {"JOBNET_BROKER__NONSENSE__KEY": "1"}, 2, "nonsense"),
        (("topology", "check"), {"JOBNET_BROKER__RABBITMQ__URL": "amqp://a:b@127.0.0.1:1"}, 1, "connect"),
        (("ledger", "upgrade"), {"JOBNET_BROKER__LEDGER__DSN": "postgresql://a:b@127.0.0.1:1/x"}, 1, ""),
        (("status",), {"JOBNET_BROKER__LEDGER__DSN": "postgresql://a:secret@127.0.0.1:1/x"}, 1, "PostgreSQL"),
        (("trace", "not-a-uuid"), {}, 2, "not-a-uuid"),
        (("send", "no-such-file"), {}, 2, "no-such-file"),
    ],
)
async def test_a_mistake_is_told_without_a_traceback(
    shared: RunningBroker, words: tuple[str, ...], changes: dict[str, str], code: int, said: str
) -> None:
    got, out, err = await shared.call(*words, changes=changes)
    assert got == code, (out, err)
    assert said.lower() in (out + err).lower()
    assert "Traceback" not in out + err
    assert "secret" not in out + err


async def test_the_configuration_is_checked(shared: RunningBroker) -> None:
    code, out, _ = await shared.call("config", "check")
    assert (code, "good; 3 jobcenters" in out) == (0, True)


async def test_keys_are_made_for_the_environment(shared: RunningBroker) -> None:
    code, out, _ = await shared.call("config", "keys")
    assert code == 0
    assert {line.partition("=")[0] for line in out.splitlines()} == {
        f"JOBNET_BROKER__KEYS__{name}" for name in ("SEALING", "SEAL_WITH", "TOKENS", "TOKEN_ORDER")
    }


async def test_the_topology_is_as_it_should_be_and_says_when_not(shared: RunningBroker) -> None:
    assert (await shared.call("topology", "check"))[0] == 0
    code, out, _ = await shared.call("topology", "users")
    assert code == 0
    assert {user["name"] for user in json.loads(out)["users"]} >= {"jobnet-frontend", "jobnet-broker"}


async def test_sent_lines_are_answered(shared: RunningBroker) -> None:
    # Without `sentAt`: the command sets it when it sends, however long it takes to start.
    bodies = [booking(shared, 500 + n, sentAt=None) for n in range(5)]
    del bodies[0]["requestId"]
    lines = "\n".join(json.dumps({"type": "booking.book.v1", "body": body}) for body in bodies)
    code, out, err = await shared.call("send", "-", stdin=lines.encode())
    assert code == 0, err
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["done"] * 5


async def test_a_line_that_cannot_be_sent_is_named(shared: RunningBroker) -> None:
    code, _, err = await shared.call("send", "-", stdin=b'{"type": 7}\n')
    assert (code, "line 1" in err) == (1, True)


async def test_a_request_can_be_traced_without_personal_data(
    shared: RunningBroker, frontend: Frontend
) -> None:
    body = booking(shared, 510)
    await frontend.ask("booking.book.v1", body)
    code, out, err = await shared.call("trace", body["requestId"], "--json")
    assert code == 0, err
    [story] = json.loads(out)["requests"]
    assert (story["state"], story["status"], story["booking_system"]) == ("settled", "done", "system-1")
    assert body["cpr"] not in out
    code, out, _ = await shared.call("trace", body["requestId"])
    assert (code, "system-1" in out) == (0, True)


async def test_an_unknown_request_is_said_to_be_unknown(shared: RunningBroker) -> None:
    code, _, err = await shared.call("trace", str(uuid4()))
    assert (code, "knows no request" in err) == (1, True)


async def test_the_status_names_the_ready_process(shared: RunningBroker) -> None:
    code, out, _ = await shared.call("status", "--json")
    assert (code, [row["ready"] for row in json.loads(out)]) == (0, [True])


class TestReload:
    """A reloaded directory is used without a restart (docs/contract.md#directory)."""

    async def test_a_new_jobcenter_is_served_after_sighup(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        directory = shared.folder / "directory.toml"
        body = booking(shared, 520, jobcenterkode="90009")
        assert (await frontend.ask("booking.book.v1", body))["reason"] == "unknown-jobcenter"
        directory.write_text(
            directory.read_text()
            + '\n[jobcenters."90009"]\nname = "Ny"\nplanner = "nordlys"\n'
            + 'booking_system = "system-1"\nsupplier = "supplier-1"\n'
        )
        await self._reload(shared, "reloaded")
        changes = [
            line["reason"] for line in shared.processes[0].lines() if line.get("event") == "reload-change"
        ]
        assert changes == ["jobcenters.90009: added"]
        answer = await frontend.ask("query.offers.v1", request(521, "90009", kontaktgruppe="1"))
        assert answer.get("reason") != "unknown-jobcenter"

    async def test_a_system_with_open_requests_may_not_go(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        # Given an uncertain booking at system-2
        body = booking(shared, 522, "90002")
        invitation = str(invitation_of(UUID(body["requestId"])))
        shared.sandbox.booking_systems["system-2"].script(
            "create", "status", status=500, invitation=invitation
        )
        # And nobody says what became of it, for as long as we look
        shared.sandbox.booking_systems["system-2"].script(
            "find", "status", status=503, times=None, invitation=invitation, label="silent"
        )
        assert (await frontend.ask("booking.book.v1", body))["status"] == "uncertain"
        # When a directory comes that readdresses it, then it is refused with the command that helps
        directory = shared.folder / "directory.toml"
        good = directory.read_text()
        directory.write_text(
            good.replace(shared.sandbox.booking_systems["system-2"].base_url, "http://127.0.0.1:1")
        )
        await self._reload(shared, "reload-refused")
        directory.write_text(good)
        code, out, _ = await shared.call("open", "system-2")
        shared.sandbox.booking_systems["system-2"].scripts.clear("silent")
        assert (code, out.split()[0]) == (0, body["requestId"])

    async def test_a_broken_directory_changes_nothing(
        self, shared: RunningBroker, frontend: Frontend
    ) -> None:
        directory = shared.folder / "directory.toml"
        good = directory.read_text()
        directory.write_text("[[[")
        await self._reload(shared, "reload-refused")
        directory.write_text(good)
        assert (await frontend.ask("booking.book.v1", booking(shared, 523)))["status"] == "done"

    @staticmethod
    async def _reload(broker: RunningBroker, event: str) -> None:
        process = broker.processes[0]
        known = sum(line.get("event") == event for line in process.lines())
        process.popen.send_signal(signal.SIGHUP)
        await poll(
            lambda: sum(line.get("event") == event for line in process.lines()) > known,
            what=f"{event} in the log",
        )


async def test_two_workers_share_the_work_and_one_that_dies_is_started_again(
    vhost: str, ledger_database: str, tmp_path: Path
) -> None:
    async with Sandbox(layout()) as sandbox:
        broker = RunningBroker(vhost, ledger_database, tmp_path, sandbox)
        try:
            await broker.prepare()
            parent = await broker.start("--workers", "2")

            async def alive() -> list[int]:
                rows = await broker.rows("SELECT pid FROM workers WHERE ready AND stopped_at IS NULL")
                return [row[0] for row in rows] if len(rows) >= 2 else []

            pids = await poll(alive, timeout=20, what="two ready workers")
            async with Frontend(vhost) as frontend:
                sent = [booking(broker, number) for number in range(100)]
                going = asyncio.gather(*(frontend.send("booking.book.v1", body) for body in sent))
                os.kill(pids[0], signal.SIGKILL)
                await going
                await audit(broker, frontend, sent, within=60)

            async def again() -> bool:
                rows = await broker.rows("SELECT pid FROM workers WHERE ready AND stopped_at IS NULL")
                return len({row[0] for row in rows} - set(pids)) >= 1

            await poll(again, timeout=20, what="the third worker")
            assert await parent.stop() == 0
        finally:
            await broker.close()
