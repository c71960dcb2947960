"""A private RabbitMQ node on the loopback, with ports, data, cookie and epmd of its own; no process outlives its owner.

RabbitServer is any server that can be reached (AMQP and management); RabbitNode is one that this process starts.
For tests and `make run`, not for production: one node, small limits, the user guest. `python -m scripts.rabbitmq` runs
one until Ctrl-C.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from scripts.processes import (
    Kept,
    PrivateServer,
    StartFailed,
    clean_environment,
    free_port,
    listens,
    run_for_a_person,
    wait_until,
)
from scripts.rabbitmq_dist import Installation, installation

STOP_GRACE_S = 30.0
CTL_TIMEOUT_S = 180
MEMORY_LIMIT = "1GB"
CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
vm_memory_high_watermark.absolute = {memory}
disk_free_limit.absolute = 50MB
log.file.level = info
# Small files: a quorum queue's log is allocated in advance, 512 MB by default.
raft.wal_max_size_bytes = 16777216
raft.segment_max_entries = 4096
# Fresh counts, because tests wait for them (quorum queues: ADVANCED).
collect_statistics_interval = 500
"""
ADVANCED = "[{rabbit, [{quorum_tick_interval, 500}]}].\n"


class RabbitServer:
    """A reachable RabbitMQ: its addresses, and the calls to the management API that tests need."""

    def __init__(self, amqp_url: str, management_url: str) -> None:
        self.amqp_url = amqp_url
        self.management_url = management_url

    def vhost_url(self, vhost: str) -> str:
        """The AMQP address of another virtual host."""
        return f"{self.amqp_url.rsplit('/', 1)[0]}/{quote(vhost, safe='')}"

    def create_vhost(self, vhost: str) -> str:
        """Create a virtual host with every permission for this user; return its AMQP address."""
        name, user = quote(vhost, safe=""), unquote(urlsplit(self.amqp_url).username or "guest")
        self.api("PUT", f"/vhosts/{name}", {})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.api("PUT", f"/permissions/{name}/{quote(user, safe='')}", everything)
        return self.vhost_url(vhost)

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host and all that is in it."""
        self.api("DELETE", f"/vhosts/{quote(vhost, safe='')}")

    def queues(self, vhost: str = "/") -> list[dict[str, Any]]:
        """The management API's rows of one virtual host's queues; figures may be five seconds old."""
        rows: list[dict[str, Any]] = self.api("GET", f"/queues/{quote(vhost, safe='')}")
        return rows

    def queue_depth(self, name: str, vhost: str = "/") -> int:
        """Messages ready and not yet acknowledged. Raises LookupError for an unknown queue."""
        # The totals come from the queues themselves; the statistics of one queue are five seconds late.
        query = "disable_stats=true&enable_queue_totals=true"
        rows: list[dict[str, Any]] = self.api("GET", f"/queues/{quote(vhost, safe='')}?{query}")
        for row in rows:
            if row["name"] == name:
                return int(row.get("messages", 0))
        raise LookupError(f"no queue {name} in the virtual host {vhost}")

    def api(self, method: str, path: str, body: object = None) -> Any:
        """One call to the management API. Raises LookupError for 404, RuntimeError for any other error."""
        at = urlsplit(self.management_url)
        user = f"{unquote(at.username or 'guest')}:{unquote(at.password or 'guest')}"
        headers = {
            "Authorization": "Basic " + base64.b64encode(user.encode()).decode(),
            "Content-Type": "application/json",
        }
        connection = http.client.HTTPConnection(at.hostname or "127.0.0.1", at.port or 15672, timeout=30)
        try:
            connection.request(method, f"/api{path}", None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status == http.client.NOT_FOUND:
            raise LookupError(f"{method} {path}: RabbitMQ does not know it")
        if response.status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {response.status} {text.decode(errors='replace')[:300]}")
        return json.loads(text) if text else None


class RabbitNode(RabbitServer, PrivateServer):
    """A private node in `directory`. Ports and data stay over stop and start.

    With the management plugin RabbitMQ 3.10 takes six seconds to stop; `kill` is quick and loses no confirmed message.
    """

    title = "the private RabbitMQ"
    start_timeout_s = 90.0

    def __init__(
        self,
        directory: Path,
        *,
        plugins: tuple[str, ...] = ("rabbitmq_management",),
        memory_limit: str = MEMORY_LIMIT,
    ) -> None:
        self.directory = directory.resolve()
        if any(character.isspace() for character in str(self.directory)):
            raise StartFailed(f"RabbitMQ's own scripts fail with a space in a path: {self.directory}")
        self._plugins = plugins
        self._memory_limit = memory_limit
        self._amqp, self._management, self._dist, self._epmd_port = (free_port() for _ in range(4))
        self._epmd: Kept | None = None
        super().__init__(
            f"amqp://guest:guest@127.0.0.1:{self._amqp}/", f"http://guest:guest@127.0.0.1:{self._management}"
        )

    @property
    def log(self) -> Path:
        return self.directory / "log" / "rabbit.log"

    def _launch(self) -> Kept:
        found = installation()
        self._write_files()
        self._epmd = self._start_epmd(found)
        return Kept(
            [str(found.sbin / "rabbitmq-server")],
            env=self._environment(found),
            log=self.directory / "console.log",
            grace_s=STOP_GRACE_S,
        )

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl ARGUMENTS` and return its output. Takes about a second; for counts use the management API.

        Raises RuntimeError when the command fails.
        """
        found = installation()
        done = subprocess.run(
            [str(found.sbin / "rabbitmqctl"), "--node", self._name, "-q", *arguments],
            env=self._environment(found),
            capture_output=True,
            text=True,
            timeout=CTL_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"rabbitmqctl {shlex.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done.stdout

    def write_out(self) -> None:
        """Flush RabbitMQ's file tables (dets) to the disk now, among them its list of quorum queues."""
        self.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")

    @property
    def _name(self) -> str:
        return "jobnet@localhost"

    def _ready(self) -> bool:
        if "rabbitmq_management" not in self._plugins:
            return listens(self._amqp)
        return listens(self._amqp) and listens(self._management) and self._management_answers()

    def _management_answers(self) -> bool:
        # RabbitMQ 4.3 opens the port of its management some time before it answers there.
        try:
            self.api("GET", "/overview")
        except (OSError, http.client.HTTPException, RuntimeError):
            return False
        return True

    def _end(self, how: Callable[[Kept], None]) -> None:
        super()._end(how)
        self._end_epmd()

    def _end_epmd(self) -> None:
        epmd, self._epmd = self._epmd, None
        if epmd:
            epmd.kill()  # it has no data

    def _start_epmd(self, found: Installation) -> Kept:
        """Erlang's name server, in the foreground."""
        # Without one, the VM would start its own, which outlives it.
        log = self.directory / "epmd.log"
        command = [found.program("epmd"), "-port", str(self._epmd_port), "-address", "127.0.0.1"]
        epmd = Kept(command, env=self._environment(found), log=log)
        wait_until(lambda: listens(self._epmd_port), epmd, timeout_s=20, what="Erlang's epmd", log=log)
        return epmd

    def _write_files(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        cookie = self.directory / ".erlang.cookie"
        if not cookie.exists():
            with os.fdopen(os.open(cookie, os.O_WRONLY | os.O_CREAT, 0o400), "w") as file:
                file.write(secrets.token_hex(16))
        ports = {"amqp": self._amqp, "management": self._management}
        lines = CONFIG.format(memory=self._memory_limit, **ports).splitlines()
        if "rabbitmq_management" not in self._plugins:
            lines = [line for line in lines if not line.startswith("management.")]
        (self.directory / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.directory / "advanced.config").write_text(ADVANCED)
        (self.directory / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")

    def _environment(self, found: Installation) -> dict[str, str]:
        loopback = "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"
        here = self.directory
        return clean_environment(
            HOME=str(here),
            ERL_EPMD_PORT=str(self._epmd_port),
            ERL_EPMD_ADDRESS="127.0.0.1",
            RUNNING_UNDER_SYSTEMD="true",  # the script becomes the VM by exec, so the pid of both is the same
            RABBITMQ_NODENAME=self._name,
            RABBITMQ_DIST_PORT=str(self._dist),
            RABBITMQ_BASE=str(here),
            RABBITMQ_MNESIA_BASE=str(here / "data"),
            RABBITMQ_LOG_BASE=str(here / "log"),
            RABBITMQ_LOGS=str(self.log),
            RABBITMQ_CONFIG_FILE=str(here / "rabbitmq.conf"),
            RABBITMQ_ADVANCED_CONFIG_FILE=str(here / "advanced.config"),
            RABBITMQ_CONF_ENV_FILE=str(here / "rabbitmq-env.conf"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(here / "enabled_plugins"),
            RABBITMQ_GENERATED_CONFIG_DIR=str(here / "generated"),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=f"+S 2:2 +SDcpu 1:1 +SDio 4 {loopback}",
            RABBITMQ_CTL_ERL_ARGS=f"+S 1:1 {loopback}",
            ERL_CRASH_DUMP=str(here / "erl_crash.dump"),
            ERL_CRASH_DUMP_SECONDS="0",  # no dump: it would write for seconds after a kill
            **found.environment(),
        )


if __name__ == "__main__":
    run_for_a_person("rabbitmq", RabbitNode, "amqp_url", "management_url")
