"""The servers that faults break: a RabbitMQ and a PostgreSQL for all seeds, a cluster when a seed wants one.

The ledger's disk is a small tmpfs of our own where the kernel lets us have one (as root, or in a user namespace), so
that it can be really full; else PostgreSQL's files get a size limit, and its writes fail with EFBIG instead.
"""

from __future__ import annotations

import ctypes
import os
import resource
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from scripts.debian import Package, has
from scripts.postgres import PostgresNode
from scripts.processes import StartFailed
from scripts.rabbit_cluster import RabbitCluster
from scripts.rabbitmq import RabbitNode

DISK_BYTES = 512 * 1024 * 1024
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
FILE_LIMIT_BYTES = 8192
TMPFS, FILE_SIZE = "tmpfs (ENOSPC)", "RLIMIT_FSIZE (EFBIG)"
LIBRARY = "usr/lib/*/faketime/libfaketimeMT.so.1"
FAKETIME = Package(
    "libfaketime",
    title="libfaketime",
    folder="faketime",
    finish=has(LIBRARY),
    sorry="libfaketime could not be unpacked here ({why}); the clock-jump fault needs it.",
)


def own_mounts() -> bool:
    """Let this process and its children have mounts that nobody else sees and that end with them.

    To be called while there is one thread. False where the kernel does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)) != 0:
        return False
    if user:
        with suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return bool(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0)


def mount_tmpfs(folder: Path, size: int) -> bool:
    """An empty file system of `size` bytes at `folder`."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(
        libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size},mode=0755".encode()) == 0
    )


def faketime_library() -> Path:
    """libfaketime from the distribution's package, unpacked without root. Raises StartFailed."""
    return next(FAKETIME.unpacked().glob(LIBRARY))


class Disk:
    """The ledger's disk, which can be full. `how` says what stands for it."""

    def __init__(self, folder: Path, *, mounts: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._ballast = folder / "ballast"
        self.how = TMPFS if mounts and mount_tmpfs(folder, DISK_BYTES) else FILE_SIZE

    def fill(self, postgres: PostgresNode) -> None:
        """From now on nothing more can be written."""
        if self.how == FILE_SIZE:
            _limit_files(postgres, FILE_LIMIT_BYTES)
            return
        with suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            free = os.statvfs(self._ballast.parent)
            os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize * 9 // 10))
            file.seek(0, os.SEEK_END)
            while True:  # PostgreSQL writes beside us; until the kernel says no
                file.write(bytes(4096))

    def free(self, postgres: PostgresNode) -> None:
        """A person made room."""
        self._ballast.unlink(missing_ok=True)
        if self.how == FILE_SIZE:
            _limit_files(postgres, resource.RLIM_INFINITY)


def _limit_files(postgres: PostgresNode, limit: int) -> None:
    """For the server and every process of it; it ignores the signal and sees a failed write."""
    with suppress(psutil.Error):
        server = psutil.Process(postgres.pid)
        for process in (server, *server.children(recursive=True)):
            with suppress(psutil.Error):
                _, hard = process.rlimit(resource.RLIMIT_FSIZE)
                process.rlimit(resource.RLIMIT_FSIZE, (limit, hard))


class Servers:
    """`with Servers(folder, mounts=…) as servers`: servers up for any number of seeds, one after the other."""

    def __init__(self, folder: Path, *, mounts: bool) -> None:
        self._folder = folder
        self.disk = Disk(folder / "postgres", mounts=mounts)
        self.postgres = PostgresNode(folder / "postgres")
        self._rabbit: RabbitNode | None = None
        self._cluster: RabbitCluster | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.postgres.start()
        self._stack.callback(self.postgres.kill)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def rabbit(self) -> RabbitNode:
        """The single node, started when first wanted."""
        if self._rabbit is None:
            node = RabbitNode(self._folder / "rabbit")
            self._stack.callback(node.kill)
            node.start()
            self._rabbit = node
        return self._rabbit

    @property
    def cluster(self) -> RabbitCluster:
        """The three nodes, started when first wanted. Raises StartFailed."""
        if self._cluster is None:
            cluster = RabbitCluster(self._folder / "cluster")
            self._stack.callback(cluster.end)
            cluster.start()
            self._cluster = cluster
        return self._cluster

    def logs(self) -> dict[str, Path]:
        """The servers' own logs: no CPR number may be in them either."""
        nodes = [self._rabbit] if self._rabbit else []
        members = self._cluster.members if self._cluster else []
        rabbit = {f"log of RabbitMQ {n}": node.log for n, node in enumerate([*nodes, *members], 1)}
        return {"log of PostgreSQL": self.postgres.log, **rabbit}


__all__ = ["Disk", "Servers", "StartFailed", "faketime_library", "own_mounts"]
