"""All parts of one run: two workers behind links that faults can break, restarted as by a supervisor, and the citizens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from broker.ledger.postgres.versions import bring_up_to_date
from sandbox.servers import Sandbox
from tests.faults.links import Link
from tests.faults.matrix import Fault, Plan
from tests.faults.servers import Servers, faketime_library
from tests.functional.running_broker import ANSWERS, FAST, Frontend, Process, RunningBroker, layout
from tests.support import poll

WORKERS = 2
LOOK_S = 0.1
START_AGAIN_S = 0.5
STOP_WITHIN_S = 30.0
"""stop.drain_seconds is 12 here; a busy machine needs a little more."""
PATIENCE_S = 8.0
"""requests.patience_seconds of these settings."""
# A half-open link must be found out inside a run: 3 * (2 + 1) s.
SETTINGS = FAST.replace("[rabbitmq]", "[rabbitmq]\nheartbeat_seconds = 2")
QUORUM = {"x-queue-type": "quorum"}


class Citizens(Frontend):
    """A Jobnet frontend that also keeps when each first answer came, and whose own queues are quorum queues."""

    def __init__(self, amqp_url: str) -> None:
        super().__init__(amqp_url)
        self.first_answer_at: dict[str, datetime] = {}

    async def __aenter__(self) -> Citizens:
        self._connection = await aio_pika.connect_robust(self._url, reconnect_interval=0.3, heartbeat=4)
        self._channel = await self._connection.channel(on_return_raises=True)
        answers = await self._channel.declare_queue(ANSWERS, durable=True, arguments=QUORUM)
        await answers.consume(self._on_answer)
        outcomes = await self._channel.declare_queue("test.outcomes", durable=True, arguments=QUORUM)
        await outcomes.bind("jobnet.outcomes", "#")
        await outcomes.consume(self._on_event)
        return self

    async def _on_answer(self, message: AbstractIncomingMessage) -> None:
        self.first_answer_at.setdefault(message.correlation_id or "", datetime.now(UTC))
        await super()._on_answer(message)


class Workers:
    """The workers. One that ended is started again after half a second, unless a fault holds it down."""

    def __init__(self, broker: RunningBroker, changes: list[dict[str, str]]) -> None:
        self._broker = broker
        self._changes = changes
        self._workers: list[Process] = []
        self._down_until = [0.0] * len(changes)
        self.killed_at: list[datetime] = []
        self.ended_by_itself: list[str] = []
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """All ready, and watched."""
        started = [self._broker.start(changes=changes) for changes in self._changes]
        self._workers = list(await asyncio.gather(*started))
        self._watching = asyncio.create_task(self._watch())

    def kill(self, which: int, down_s: float) -> None:
        """kill -9; not started again before so many seconds."""
        self._down_until[which] = time.monotonic() + down_s
        self.killed_at.append(datetime.now(UTC))
        self._workers[which].kill()

    def freeze(self, which: int) -> Process:
        worker = self._workers[which]
        worker.freeze()
        return worker

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for number, worker in enumerate(self._workers):
                code = worker.popen.poll()
                if code is not None and time.monotonic() >= self._down_until[number]:
                    if code != -9:
                        self.ended_by_itself.append(
                            f"worker {number + 1} ended with {code}: {last_words(worker)}"
                        )
                        self.killed_at.append(datetime.now(UTC))
                    self._down_until[number] = time.monotonic() + START_AGAIN_S
                    changes = self._changes[number]
                    self._workers[number] = await self._broker.start(ready=False, changes=changes)

    async def stop(self) -> list[str]:
        """SIGTERM to all; a sentence for each that did not stop well."""
        if self._watching is not None:
            self._watching.cancel()
        wrong = []
        for number, worker in enumerate(self._workers, 1):
            try:
                code: object = await worker.stop(within=STOP_WITHIN_S)
            except AssertionError:
                worker.kill()
                code = f"kill -9, {STOP_WITHIN_S:g} s after SIGTERM"
            if code != 0:
                wrong.append(f"worker {number} stopped with {code}: {last_words(worker)}")
        return wrong


def last_words(worker: Process) -> str:
    """The last error in a worker's log, or its last words at all."""
    lines = worker.lines()
    errors = [line for line in lines if line.get("level") in ("error", "critical")]
    said = (errors or lines or [{}])[-1]
    return f"{said.get('event', '')} {said.get('error', said.get('reason', ''))}".strip()


@dataclass
class Window:
    """The time in which a fault was active."""

    fault: Fault
    began: datetime
    ended: datetime | None = None


@dataclass
class RunContext:
    """All parts of one run."""

    plan: Plan
    servers: Servers
    broker: RunningBroker
    citizens: Citizens
    workers: Workers
    links: dict[str, Link]
    clock: Path
    windows: list[Window] = field(default_factory=list)
    # Held while a fault starts or stops a server: two faults of a pair may want the same one.
    server_lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@asynccontextmanager
async def run_context(plan: Plan, servers: Servers, folder: Path) -> AsyncIterator[RunContext]:
    """All up and ready for the load; all down afterwards."""
    name = f"faults_{plan.seed}_{time.time_ns()}"
    server = servers.cluster if plan.on_a_cluster else servers.rabbit
    url = await asyncio.to_thread(server.create_vhost, name)
    dsn = servers.postgres.create_database(name)
    await bring_up_to_date(dsn)
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(
            Sandbox(layout(systems=2, suppliers=("contract", "webhook"), breaker_failures=20))
        )
        links = await _links(stack, plan, servers, sandbox, url, dsn)
        front = url if not plan.on_a_cluster else _through(url, links["cluster"])
        broker = RunningBroker(front, dsn, folder, sandbox, settings=SETTINGS)
        directory = folder / "directory.toml"
        text = directory.read_text()
        for system, link in links.items():
            if system in sandbox.systems:
                text = text.replace(f":{sandbox.systems[system].port}", f":{link.port}")
        directory.write_text(text)
        stack.push_async_callback(broker.close)
        await broker.prepare()
        clock = folder / "clock"
        clock.write_text("+0\n")
        changes = [
            {
                "JOBNET_BROKER__RABBITMQ__URL": _through(url, links["rabbitmq"]),
                "JOBNET_BROKER__LEDGER__DSN": _through(dsn, links["postgresql"]),
                **(_false_clock(clock) if number == 0 and plan.with_false_clock else {}),
            }
            for number in range(WORKERS)
        ]
        workers = Workers(broker, changes)
        # Some seconds before the first fault: RabbitMQ 3.10 may lose a queue that is killed as soon as it is declared.
        citizens = await stack.enter_async_context(Citizens(front))
        await workers.start()
        yield RunContext(plan, servers, broker, citizens, workers, links, clock)
    with suppress(RuntimeError, OSError, LookupError):
        await asyncio.to_thread(server.delete_vhost, name)
        servers.postgres.drop_database(name)


async def _links(
    stack: AsyncExitStack, plan: Plan, servers: Servers, sandbox: Sandbox, url: str, dsn: str
) -> dict[str, Link]:
    rabbits = [m.amqp_url for m in servers.cluster.members] if plan.on_a_cluster else [url]
    targets = {
        "rabbitmq": rabbits,
        "postgresql": [dsn],
        **({"cluster": rabbits} if plan.on_a_cluster else {}),
        **{name: [system.base_url] for name, system in sandbox.booking_systems.items()},
        **{name: [supplier.base_url] for name, supplier in sandbox.suppliers.items()},
    }
    return {
        name: await stack.enter_async_context(Link([_address(each) for each in urls]))
        for name, urls in targets.items()
    }


def _address(url: str) -> tuple[str, int]:
    at = urlsplit(url)
    return at.hostname or "127.0.0.1", at.port or 0


def _through(url: str, link: Link) -> str:
    return url.replace(f":{urlsplit(url).port}", f":{link.port}")


def _false_clock(clock: Path) -> dict[str, str]:
    """Wall time is read from a file; the monotonic clock stays true, as it does when a wall clock is set."""
    return {
        "LD_PRELOAD": str(faketime_library()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


async def quiet(context: RunContext, within: float) -> list[str]:
    """Wait until nothing is under way any more; sentences for what still was when the time was over."""
    last: list[str] = ["not looked at yet"]

    async def still() -> bool:
        nonlocal last
        try:
            last = await _under_way(context)
        except OSError as away:
            last = [f"PostgreSQL is away: {type(away).__name__}"]
        await asyncio.sleep(0.5)
        return not last

    # Recovery is measured in seconds of this machine, loaded or not.
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await poll(still, timeout=within, what="quiet")
    return last


async def _under_way(context: RunContext) -> list[str]:
    rows = await context.broker.rows(
        "SELECT 'request ' || request_id || ' is ' || state FROM requests WHERE state IN ('running', 'uncertain')"
        " UNION ALL SELECT 'report ' || report_id || ' is ' || state FROM reports"
        " WHERE state NOT IN ('delivered', 'dead', 'discarded')"
        " UNION ALL SELECT 'outcome of ' || request_id || ' is not told' FROM requests WHERE event_due_at IS NOT NULL"
        " UNION ALL SELECT 'end of ' || report_id || ' is not told' FROM reports WHERE event_due_at IS NOT NULL"
    )
    return [str(row[0]) for row in rows]
