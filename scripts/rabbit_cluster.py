"""A RabbitMQ cluster of several private nodes on this machine, with one epmd, one cookie, and quorum queues over all.

Every node is a RabbitNode (see rabbitmq.py) that tests may kill and start again; no process outlives its owner.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from scripts.processes import Kept, PrivateServer, StartFailed
from scripts.rabbitmq import RabbitNode
from scripts.rabbitmq_dist import Installation

MEMBERS = 3
MEMORY_LIMIT = "512MB"


class Member(RabbitNode):
    """One node of a cluster, without the management plugin (memory). `stop` and `kill` end this node alone."""

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
        """The epmd of the first member, which outlives that member."""
        if self._first is not None:
            epmd = self._first._epmd
            if epmd is None:
                raise StartFailed("the cluster's epmd is not running")
            return epmd
        if self._epmd is not None and self._epmd.alive():
            return self._epmd
        return super()._start_epmd(found)

    def _end(self, how: Callable[[Kept], None]) -> None:
        PrivateServer._end(self, how)  # epmd goes on: the other members need it

    def join(self) -> None:
        """Join the first member's cluster; this node's own data is deleted."""
        if self._first is not None:
            for words in (("stop_app",), ("reset",), ("join_cluster", self._first._name), ("start_app",)):
                self.ctl(*words)

    def end(self) -> None:
        """Kill this node, and epmd if it is the first member's."""
        self.kill()
        if self._first is None:
            self._end_epmd()


class RabbitCluster:
    """`with RabbitCluster(folder) as cluster`: each of `cluster.members` can be killed and started."""

    def __init__(self, directory: Path, members: int = MEMBERS) -> None:
        cookie = secrets.token_hex(16)
        self.members: list[Member] = []
        for number in range(1, members + 1):
            first = self.members[0] if self.members else None
            self.members.append(Member(directory / f"node-{number}", number, cookie, first))

    def start(self) -> None:
        """Start all members and join them. Raises StartFailed with the end of a log."""
        self.members[0].start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(Member.start, self.members[1:]))
        for member in self.members[1:]:
            member.join()

    def create_vhost(self, vhost: str) -> str:
        """Create a virtual host on every member; return its address on the first one."""
        first = self.members[0]
        first.ctl("add_vhost", vhost)
        first.ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
        return f"{first.amqp_url.rsplit('/', 1)[0]}/{quote(vhost, safe='')}"

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host and all that is in it."""
        next(member for member in self.members if member.alive).ctl("delete_vhost", vhost)

    def end(self) -> None:
        """Kill all members; their data is not needed any more."""
        for member in reversed(self.members):
            member.end()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
