"""A poison message: a request that kills every process is quarantined, then left to an operator."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from sandbox.servers import Sandbox
from schemas.ids import invitation_of
from tests.functional.running_broker import Frontend, RunningBroker, booking, layout, settled
from tests.support import poll

BOOK = "booking.book.v1"


@pytest.mark.timeout(180)
async def test_a_booking_that_kills_every_process_ends_as_unverified_and_takes_no_bystander_along(
    vhost: str, database: str, tmp_path: Path
) -> None:
    async with Sandbox(layout()) as sandbox:
        broker = RunningBroker(vhost, database, tmp_path, sandbox)
        system = sandbox.booking_systems["system-1"]
        try:
            await broker.prepare_by_commands()
            process = await broker.start()
            async with Frontend(vhost) as frontend:
                # Given a booking whose every call kills the broker: we play the bug
                guilty = booking(broker, 1)
                invitation = str(invitation_of(UUID(guilty["requestId"])))
                for operation in ("create", "find"):
                    system.script(operation, "hang", times=None, seconds=30, invitation=invitation)
                await frontend.send(BOOK, guilty)
                deaths = 0
                bystanders = []

                def calls() -> int:
                    wanted = ("create", "find")
                    return sum(
                        c.invitation == invitation and c.operation in wanted for c in system.journal.calls
                    )

                async def state() -> str:
                    rows = await broker.rows(
                        "SELECT state FROM requests WHERE request_id = $1", UUID(guilty["requestId"])
                    )
                    return str(rows[0][0]) if rows else ""

                async def touched_or_over() -> bool:
                    return calls() > deaths or await state() == "unverified"

                while True:
                    # When it is touched again, the process dies
                    await poll(touched_or_over, timeout=60, what="the next victim, or the end")
                    if await state() == "unverified":
                        break
                    deaths = calls()
                    bystander = booking(broker, 10 + deaths)
                    bystanders.append(bystander)
                    await frontend.send(BOOK, bystander)
                    process.kill()
                    process = await broker.start()
                # Then that comes to an end, and everybody else is served
                assert 2 <= deaths <= 4
                ends = await settled(broker, [body["requestId"] for body in bystanders])
                assert set(ends.values()) <= {"done", "expired", "failed"}
                meetings = {str(invitation) for invitation in system.book.meetings}
                for body in bystanders:
                    booked = str(invitation_of(UUID(body["requestId"]))) in meetings
                    assert booked == (ends[body["requestId"]] == "done")
                after = await frontend.ask(BOOK, booking(broker, 50))
                assert after["status"] == "done"
                # And its citizen was told the truth, and is not held for ever
                assert {a["status"] for a in frontend.answers[guilty["requestId"]]} == {"uncertain"}
                again = {**booking(broker, 51), "cpr": guilty["cpr"]}
                assert (await frontend.ask(BOOK, again))["status"] == "done"
        finally:
            await broker.close()
