"""The servers of the benchmark: a private RabbitMQ, PostgreSQL and nginx, and a new virtual host for every run.

With two cores or more, the contestant has the last core for itself (two cores for two processes) and everything else
shares the others. So the benchmark compares what each contestant does on one core.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import quote

from bench import job
from bench.stub import Stub
from scripts.postgres import PostgresNode
from scripts.processes import LOCAL, ROOT, private_folder
from scripts.rabbitmq import RabbitNode

CORES = tuple(sorted(os.sched_getaffinity(0)))
POLICIES = {
    # Nothing consumes the events, nor the answers of a backlog. RabbitMQ drops the oldest, to save disk space.
    job.EVENTS: {"max-length": 10_000, "overflow": "drop-head"},
    job.ANSWERS: {"max-length": 100_000, "overflow": "drop-head"},
}
_numbers = count(1)


@dataclass(frozen=True)
class Servers:
    """The running servers."""

    folder: Path
    rabbit: RabbitNode
    postgres: PostgresNode
    stub: Stub

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """A new virtual host, database and folder; deleted at the end (the folder stays)."""
        name = f"bench_{next(_numbers)}"
        folder = self.folder / name
        folder.mkdir()
        url, dsn = self.rabbit.create_vhost(name), self.postgres.create_database(name)
        workspace = Workspace(name, folder, url, dsn, self)
        workspace.declare()
        try:
            yield workspace
        finally:
            self.rabbit.delete_vhost(name)
            self.postgres.drop_database(name)


@dataclass(frozen=True)
class Workspace:
    """The virtual host, database and folder of one run of one contestant."""

    name: str
    folder: Path
    amqp_url: str
    dsn: str
    servers: Servers

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "BENCH_AMQP_URL": self.amqp_url,
            "BENCH_HTTP_URL": self.servers.stub.url,
            **more,
        }

    def declare(self) -> None:
        """Declare the quorum queues for answers and events, which all contestants use."""
        for queue, definition in POLICIES.items():
            policy = {"pattern": f"^{queue}$", "definition": definition, "apply-to": "queues"}
            self.put("policies", queue, policy)
            self.queue(queue)
        self.put("exchanges", job.OUTCOMES, {"type": "topic", "durable": True})
        self.bind(job.OUTCOMES, job.EVENTS, "#")

    def declare_requests(self) -> None:
        """Declare the request queue like the broker's topology, for contestants that do not declare it themselves."""
        self.put("exchanges", job.REQUESTS, {"type": "topic", "durable": True})
        self.queue(job.BOOKINGS, **{"x-max-length": 100_000, "x-overflow": "reject-publish"})
        self.bind(job.REQUESTS, job.BOOKINGS, job.KEY)

    def fill_queue(self, kind: str, count: int) -> None:
        """Publish `count` expired `requests` or whole `reports` (fill_queue.py)."""
        command = [sys.executable, "-m", "bench.fill_queue", kind, str(count)]
        subprocess.run(command, cwd=ROOT, env=self.environment(), check=True)

    def queue(self, name: str, **arguments: object) -> None:
        self.put("queues", name, {"durable": True, "arguments": {"x-queue-type": "quorum", **arguments}})

    def bind(self, exchange: str, queue: str, key: str) -> None:
        path = f"/bindings/{self.name}/e/{quote(exchange)}/q/{quote(queue)}"
        self.servers.rabbit.api("POST", path, {"routing_key": key, "arguments": {}})

    def put(self, kind: str, name: str, body: Mapping[str, object]) -> None:
        self.servers.rabbit.api("PUT", f"/{kind}/{self.name}/{quote(name)}", body)


@contextlib.contextmanager
def running_servers() -> Iterator[Servers]:
    """Start the servers on the cores that contestants do not use; stop them at the end."""
    all_cores = os.sched_getaffinity(0)
    if len(CORES) > 1:
        os.sched_setaffinity(0, CORES[:-1])  # inherited by all servers and by the load
    try:
        with (
            private_folder(LOCAL / "bench") as folder,
            RabbitNode(folder / "rabbit") as rabbit,
            PostgresNode(folder / "postgres") as postgres,
            Stub(folder / "nginx") as stub,
        ):
            yield Servers(folder, rabbit, postgres, stub)
    finally:
        os.sched_setaffinity(0, all_cores)


def contestant_cores(processes: int = 1) -> set[int]:
    return set(CORES[-processes:])
