"""A RabbitMQ cluster of several private nodes on this machine: one name server, one cookie, quorum queues over all.

Every node is a RabbitNode (see rabbitmq.py) that may be killed and started again. For tests; nothing stays behind.
"""

from __future__ import annotations

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from scripts.processes import Kept, StartFailed
from scripts.rabbitmq import RabbitNode
from scripts.rabbitmq_dist import Installation

MEMBERS = 3
MEMORY_LIMIT = "512MB"


class Member(RabbitNode):
    """One node of a cluster. It has no management plugin: three of them would cost more than they tell."""

    def __init__(self, directory: Path, number: int, cookie: str, first: Member | None) -> None:
        super().__init__(directory, plugins=(), memory_limit=MEMORY_LIMIT)
        self._number = number
        self._first = first
        self.directory.mkdir(parents=True, exist_ok=True)
        with os.fdopen(
            os.open(self.directory / ".erlang.cookie", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o400), "w"
        ) as file:
            file.write(cookie)
        if first is not None:
            self._epmd_port = first._epmd_port

    @property
    def _name(self) -> str:
        return f"jobnet-{self._number}@localhost"

    def _start_epmd(self, found: Installation) -> Kept:
        """The first member has the name server; it outlives that member's kills."""
        if self._first is not None:
            epmd = self._first._epmd
            if epmd is None:
                raise StartFailed("the cluster's name server is not running")
            return epmd
        if self._epmd is not None and self._epmd.alive():
            return self._epmd
        return super()._start_epmd(found)

    def kill(self) -> None:
        """SIGKILL for this node alone."""
        server, self._server = self._server, None
        if server is not None:
            server.kill()

    def stop(self) -> None:
        """End this node alone, in good order."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._server is not None and self._server.alive()

    def join(self) -> None:
        """Become a member of the first one's cluster; what was here is forgotten."""
        if self._first is not None:
            for words in (("stop_app",), ("reset",), ("join_cluster", self._first._name), ("start_app",)):
                self.ctl(*words)

    def end(self) -> None:
        """Nothing of it runs afterwards."""
        self.kill()
        epmd, self._epmd = self._epmd, None
        if epmd is not None and self._first is None:
            epmd.kill()


class RabbitCluster:
    """`with RabbitCluster(folder) as cluster`: `cluster.members`, each of which can be killed and started."""

    def __init__(self, directory: Path, members: int = MEMBERS) -> None:
        cookie = secrets.token_hex(16)
        self.members: list[Member] = []
        for number in range(1, members + 1):
            first = self.members[0] if self.members else None
            self.members.append(Member(directory / f"node-{number}", number, cookie, first))

    def start(self) -> None:
        """All members up and joined. Raises StartFailed with the end of a log."""
        self.members[0].start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(Member.start, self.members[1:]))
        for member in self.members[1:]:
            member.join()

    def create_vhost(self, vhost: str) -> str:
        """A new virtual host on every member; its address on the first one."""
        first = self.members[0]
        first.ctl("add_vhost", vhost)
        first.ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
        return f"{first.amqp_url.rsplit('/', 1)[0]}/{quote(vhost, safe='')}"

    def delete_vhost(self, vhost: str) -> None:
        """Everything in it goes, too."""
        next(member for member in self.members if member.alive).ctl("delete_vhost", vhost)

    def end(self) -> None:
        """SIGKILL for all: their data goes too."""
        for member in reversed(self.members):
            member.end()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
