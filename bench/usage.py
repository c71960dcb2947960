"""CPU time and memory of process trees, from the kernel."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psutil

SAMPLE_S = 0.25
MIB = 1024 * 1024


def tree(pid: int) -> list[psutil.Process]:
    """The process and its descendants; empty if it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pid: int) -> float:
    """User and system time of a tree, including descendants that have ended."""
    total = 0.0
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_mib(pid: int) -> float:
    """Resident memory of a tree in MiB (PSS: pages shared by several of its processes count once)."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_full_info().pss
    return total / MIB


@dataclass(frozen=True)
class CpuReading:
    """CPU seconds of the contestant and of the servers at one moment."""

    seconds: Mapping[str, float]

    @classmethod
    def of(cls, pids: Mapping[str, int]) -> CpuReading:
        return cls({name: cpu_seconds(pid) for name, pid in pids.items()})

    def since(self, earlier: CpuReading) -> dict[str, float]:
        return {name: value - earlier.seconds[name] for name, value in self.seconds.items()}


class Memory:
    """Samples the memory of a process tree: `peak`, and all samples in order, in MiB."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.samples: list[float] = []
        self._stopped = threading.Event()

    @property
    def peak(self) -> float:
        return max(self.samples, default=0.0)

    def _sample(self) -> None:
        while True:
            self.samples.append(memory_mib(self._pid))
            if self._stopped.wait(SAMPLE_S):
                return

    @contextlib.contextmanager
    def watched(self) -> Iterator[Memory]:
        thread = threading.Thread(target=self._sample, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            thread.join()
