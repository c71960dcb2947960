"""A whole broker for tests: real processes, RabbitMQ, PostgreSQL and HTTP servers.

`RunningBroker` starts broker processes with a virtual host, a database and a sandbox; `Frontend` is a Jobnet frontend;
`audit` compares the answers with the ledger and with the meetings in the booking systems.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import aio_pika
import aiohttp
import asyncpg
from aio_pika.abc import AbstractIncomingMessage

from broker.rabbitmq.declare import apply
from config.settings import build, generate_keys
from config.sources import merge
from sandbox.books import citizen_token
from sandbox.servers import Sandbox
from sandbox.system_layout import (
    THREE,
    JobcenterPlan,
    Layout,
    OfferKind,
    SupplierPlan,
    SystemPlan,
    offer_id,
    slot_time,
)
from schemas.ids import invitation_of
from tests.support import poll, wait_in_process

ANSWERS = "jobnet.answers.test"
ROOM = OfferKind("samtale", (THREE,), caseworkers=20, times_a_day=16, days=10)
TIMES_A_CASEWORKER = ROOM.times_a_day * ROOM.days

FAST = """
[requests]
patience_seconds = 8
answer_margin_seconds = 0.2
poll_ms = 50
[http]
connect_timeout_seconds = 1
total_timeout_seconds = 2
retry_first_ms = 50
retry_max_ms = 500
absence_proves_after_seconds = 11
breaker_failures = 5
breaker_open_seconds = 1
[rabbitmq]
reconnect_min_seconds = 0.1
reconnect_max_seconds = 1
publish_timeout_seconds = 5
[ledger]
heartbeat_seconds = 0.4
owner_dead_after_seconds = 2.5
statement_timeout_seconds = 2
[verification]
every_seconds = 0.5
steady_for_seconds = 30
[scheduler]
tick_seconds = 0.2
[stop]
drain_seconds = 12
[reports]
retry_delays_seconds = [0.5, 1, 2, 4, 8, 8, 8]
retry_after_most_seconds = 30
merge_within_seconds = 3
join_within_seconds = 12
park_first_seconds = 0.5
park_most_seconds = 4
probe_within_seconds = 8
total_timeout_seconds = 2
handed_over_too_long_seconds = 6
[dead]
pass_every_seconds = 0.5
canary_wait_seconds = 10
[watchdog]
check_seconds = 0.5
recover_within_seconds = 40
loop_lag_seconds = 1
[health]
port = 0
figures_every_seconds = 0.5
"""


def layout(systems: int = 1, suppliers: tuple[str, ...] = ("contract",), **limits: float) -> Layout:
    """`systems` booking systems with a jobcenter each (90001, 90002, …) and much room in the calendar.

    `suppliers` are formats; they serve the jobcenters in turn, as supplier-1, supplier-2, …
    """
    names = [f"system-{n + 1}" for n in range(systems)]
    plans = {f"supplier-{n + 1}": SupplierPlan(f"Supplier {n + 1}", kind) for n, kind in enumerate(suppliers)}
    return Layout(
        planners={"nordlys": SystemPlan()},
        booking_systems={name: SystemPlan(limits=limits) for name in names},
        suppliers=plans,
        jobcenters={
            f"{90001 + n}": JobcenterPlan(
                f"Jobcenter {n}", "nordlys", name, f"supplier-{n % len(suppliers) + 1}"
            )
            for n, name in enumerate(names)
        },
        kinds=(ROOM,),
        reservation_seconds=5.0,
    )


def cpr_of(number: int) -> str:
    """An invented CPR number that no person has: born in the 2030s. Distinct for numbers below 28 * 7 * 999."""
    rest, serial = divmod(number, 999)
    year, day = divmod(rest, 28)
    return f"{day + 1:02d}01{30 + year % 7:02d}4{serial + 1:03d}"


@dataclass
class Process:
    """One broker process (or a parent with its workers) and the file with its log."""

    popen: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """kill -9, as a machine does that loses its power."""
        self.popen.kill()
        self.popen.wait()

    def freeze(self) -> None:
        self.popen.send_signal(signal.SIGSTOP)

    def reload(self) -> None:
        """Read the directory again."""
        self.popen.send_signal(signal.SIGHUP)

    def thaw(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    async def stop(self, within: float = 20) -> int:
        """SIGTERM; its exit code. Raises AssertionError when it has not ended within so many seconds (see `Patience`)."""
        if self.popen.poll() is None:
            self.popen.terminate()
        return await wait_in_process(self.popen, timeout=within)

    def lines(self) -> list[dict[str, Any]]:
        """Its log lines; a line that is not JSON yet (the last one of a killed process) is left out."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return found


@dataclass
class RunningBroker:
    """A broker with its servers, its configuration and its processes."""

    amqp_url: str
    dsn: str
    folder: Path
    sandbox: Sandbox
    settings: str = FAST
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = self.folder / "broker.toml"
        self.config.write_text(self.settings)
        self.sandbox.write_directory(self.folder / "directory.toml")
        self.keys = generate_keys()

    def environment(self, changes: Mapping[str, str] = {}) -> dict[str, str]:
        """The environment of a broker process; its secrets are on no command line."""
        keys = {
            f"JOBNET_BROKER__KEYS__{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in self.keys.items()
        }
        return {
            **os.environ,
            **keys,
            "JOBNET_BROKER__RABBITMQ__URL": self.amqp_url,
            "JOBNET_BROKER__LEDGER__DSN": self.dsn,
            "JOBNET_BROKER__LOG__FORMAT": "json",
            **changes,
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "broker", "--config", str(self.config), *words]

    async def call(
        self, *words: str, stdin: bytes = b"", changes: Mapping[str, str] = {}
    ) -> tuple[int, str, str]:
        """Run one command to its end: exit code, standard output, standard error."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*words),
            env=self.environment(changes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin)
        return process.returncode or 0, out.decode(), err.decode()

    async def prepare(self) -> None:
        """Declare the queues; `dsn` is a database with the ledger's tables."""
        settings = build(
            merge(
                tomllib.loads(self.config.read_text()),
                {"rabbitmq": {"url": self.amqp_url}, "ledger": {"dsn": self.dsn}, "keys": self.keys},
            )
        )
        assert await apply(settings, self.sandbox.layout.suppliers) == []

    async def prepare_by_commands(self) -> None:
        """Declare the queues and make the tables, as an operator does."""
        for words in (("topology", "apply"), ("ledger", "upgrade")):
            code, out, err = await self.call(*words)
            assert code == 0, (words, out, err)

    async def start(self, *words: str, ready: bool = True, changes: Mapping[str, str] = {}) -> Process:
        """Start a broker process, and wait until it says that it is ready."""
        log = self.folder / f"broker-{len(self.processes)}.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(  # noqa: ASYNC220  starts in a moment, and is killed and frozen by its handle
                self.command("run", *words), env=self.environment(changes), stdout=out, stderr=out
            )
        process = Process(popen, log)
        self.processes.append(process)
        if ready:
            await poll(lambda: self._is_ready(process), timeout=30, what=f"a ready broker, see {log}")
        return process

    @staticmethod
    def _is_ready(process: Process) -> bool:
        assert process.popen.poll() is None, process.log.read_text()[-3000:]
        return any(line.get("event") == "readiness" and line.get("ready") for line in process.lines())

    async def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.thaw()
                with suppress(AssertionError):
                    await process.stop()
                process.kill()

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """The rows of a query on the ledger's database."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()


class Frontend:
    """A Jobnet frontend: sends requests, and keeps every answer and outcome event by request id."""

    def __init__(self, amqp_url: str) -> None:
        self._url = amqp_url
        self.answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.events: dict[str, list[dict[str, Any]]] = defaultdict(list)

    async def __aenter__(self) -> Frontend:
        self._connection = await aio_pika.connect_robust(self._url, reconnect_interval=0.3, heartbeat=5)
        self._channel = await self._connection.channel(on_return_raises=True)
        queue = await self._channel.declare_queue(ANSWERS, durable=True)
        await queue.consume(self._on_answer)
        await self.listen_to_outcomes()
        return self

    async def listen_to_outcomes(self) -> None:
        """Bind a queue to the exchange of outcomes, and listen."""
        listening = await self._channel.declare_queue("test.outcomes", durable=True)
        await listening.bind("jobnet.outcomes", "#")
        await listening.consume(self._on_event)

    async def remove_outcomes(self) -> None:
        """Delete the exchange of outcomes, as a person might by mistake, and the queue that listens."""
        await self._channel.queue_delete("test.outcomes")
        await self._channel.exchange_delete("jobnet.outcomes")

    async def restore_outcomes(self) -> None:
        """The exchange again, as `topology apply` declares it."""
        await self._channel.declare_exchange("jobnet.outcomes", aio_pika.ExchangeType.TOPIC, durable=True)

    async def __aexit__(self, *_: object) -> None:
        with suppress(Exception):
            await asyncio.wait_for(self._connection.close(), 5)

    async def _on_answer(self, message: AbstractIncomingMessage) -> None:
        self.answers[message.correlation_id or ""].append(json.loads(message.body))
        with suppress(Exception):  # a channel that broke brings it again
            await message.ack()

    async def _on_event(self, message: AbstractIncomingMessage) -> None:
        event = json.loads(message.body)
        self.events[event.get("requestId", "")].append(event)
        with suppress(Exception):
            await message.ack()

    async def send(self, type_: str, body: Mapping[str, Any] | bytes, **properties: Any) -> None:
        """Publish until RabbitMQ confirms, as a frontend with the same requestId may."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        request_id = "" if isinstance(body, bytes) else str(body.get("requestId", ""))
        key = properties.pop("routing_key", type_.rpartition(".")[0])
        message: dict[str, Any] = {
            "type": type_,
            "content_type": "application/json",
            "correlation_id": request_id,
            "reply_to": ANSWERS,
            "delivery_mode": 2,
            **properties,
        }
        while True:
            try:
                exchange = await self._channel.get_exchange("jobnet.requests", ensure=False)
                await exchange.publish(
                    aio_pika.Message(raw, message_id=str(uuid4()), **message), key, timeout=5
                )
                return
            except Exception:  # whatever it was, the same request may be sent again
                await asyncio.sleep(0.2)

    async def ask(
        self, type_: str, body: dict[str, Any], *, within: float = 15, **properties: Any
    ) -> dict[str, Any]:
        """Send and wait for the next answer."""
        request_id = str(body["requestId"])
        known = len(self.answers[request_id])
        await self.send(type_, body, **properties)
        await poll(
            lambda: len(self.answers[request_id]) > known, timeout=within, what=f"an answer to {type_}"
        )
        return self.answers[request_id][known]


def request(number: int = 0, jobcenter: str = "90001", **fields: Any) -> dict[str, Any]:
    """The fields that every request has, for citizen `number`; None leaves a field out."""
    body = {
        "requestId": str(uuid4()),
        "sentAt": datetime.now(UTC).isoformat(),
        "cpr": cpr_of(number),
        "jobcenterkode": jobcenter,
        **fields,
    }
    return {name: value for name, value in body.items() if value is not None}


def booking(broker: RunningBroker, number: int, jobcenter: str = "90001", **fields: Any) -> dict[str, Any]:
    """A booking of the `number`th slot of a jobcenter's calendar by the `number`th citizen: all distinct."""
    caseworker, place = divmod(number, TIMES_A_CASEWORKER)
    day, time = divmod(place, ROOM.times_a_day)
    slot = {
        "kontaktgruppe": "1",
        "moedetilbudId": str(offer_id(jobcenter, ROOM.name)),
        "starttidspunkt": slot_time(broker.sandbox.layout.starts_on, day, time).isoformat(),
        "moedeform": THREE[number % 3],
        "sagsbehandlerId": f"{jobcenter}-{ROOM.name}-{caseworker + 1}",
    }
    return request(number, jobcenter, **{**slot, **fields})


async def settled(broker: RunningBroker, ids: Iterable[str], *, within: float = 60) -> dict[str, str]:
    """The last word of the ledger on each of these requests, when there is one on all; by request id."""
    wanted = [UUID(each) for each in ids]

    async def final() -> dict[str, str] | None:
        rows = await broker.rows(
            "SELECT request_id, status FROM requests WHERE state = 'settled' AND request_id = ANY($1)", wanted
        )
        return {str(row[0]): row[1] for row in rows} if len(rows) == len(wanted) else None

    found = await poll(final, timeout=within, what=f"the last word on {len(wanted)} requests")
    return dict(found)


def final_answers(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The different final answers to one request; `uncertain` is none yet."""
    different: list[dict[str, Any]] = []
    for answer in answers:
        if answer not in different and answer["status"] != "uncertain":
            different.append(answer)
    return different


async def audit(
    broker: RunningBroker, frontend: Frontend, sent: list[dict[str, Any]], *, within: float = 60
) -> dict[str, int]:
    """Every request has one last word, told honestly and once, and the books agree. Returns how many of each."""
    ids = [body["requestId"] for body in sent]
    await poll(
        lambda: all(frontend.answers[each] for each in ids),
        timeout=within,
        what=f"answers to all requests; missing {sum(not frontend.answers[each] for each in ids)}",
    )
    last_word = await settled(broker, ids, within=within)
    meetings = {
        str(invitation): meeting
        for system in broker.sandbox.booking_systems.values()
        for invitation, meeting in system.book.meetings.items()
    }
    counts: dict[str, int] = defaultdict(int)
    for body in sent:
        request_id = body["requestId"]
        answers = final_answers(frontend.answers[request_id])
        assert len(answers) <= 1, f"{request_id} was told different things: {answers}"
        exists = str(invitation_of(UUID(request_id))) in meetings
        assert exists == (last_word[request_id] == "done"), (request_id, last_word[request_id], exists)
        if answers:
            assert answers[0]["status"] == last_word[request_id], request_id
        counts[last_word[request_id]] += 1
    citizens = [meeting.citizen for meeting in meetings.values()]
    assert len(citizens) == len(set(citizens)), "a citizen has two meetings"
    assert {citizen_token(body["cpr"]) for body in sent} >= set(citizens)
    assert broker.sandbox.disagreements() == []
    assert broker.sandbox.breaches() == []
    return dict(counts)


async def fetched(changes: Mapping[str, str], page: str) -> tuple[int, str]:
    """A page of the health server of a process that was started with these changes: its status and text."""
    base = f"http://127.0.0.1:{changes['JOBNET_BROKER__HEALTH__PORT']}"

    async def get() -> tuple[int, str] | None:
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{base}/{page}") as response:
                return response.status, await response.text()
        except aiohttp.ClientConnectionError:
            return None

    found = await poll(get, what=f"{base}/{page}")
    return cast("tuple[int, str]", found)


def late(seconds: float) -> str:
    """A `sentAt` that long ago."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
