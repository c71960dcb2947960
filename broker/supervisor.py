"""Runs several worker processes under one parent: starts them, forwards signals, restarts dead ones.

The parent holds no connection and no state; each worker is the same command for one process. A worker that dies again
and again is restarted with growing pauses, but always restarted. When the parent ends, however, its workers stop.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from types import FrameType

from broker.signals import STOPS, ending_with_parent, held_for_child
from broker.telemetry.log import get_logger
from config.settings import Settings
from config.sources import environment_with

log = get_logger("workers")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a dead worker is restarted: doubled with each death, reset after STEADY_SECONDS alive."""
STEADY_SECONDS = 60.0


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    number: int
    started: float
    pause: float = FIRST_PAUSE
    due: float | None = None


def supervise(count: int, settings: Settings) -> int:
    """Run `count` workers until SIGTERM or SIGINT. Returns 0 if all that lived then ended as told in time, else 1."""
    return _Supervisor(count, settings).run()


class _Supervisor:
    def __init__(self, count: int, settings: Settings) -> None:
        self._command = _one_worker(sys.argv)
        self._grace = settings.stop.drain_seconds + 10
        self._health_port = settings.health.port
        self._stopping = False
        self._end_with_parent = ending_with_parent()
        self._workers: list[_Worker] = []
        # Before the first worker starts: a signal in between would end the parent and orphan the worker.
        for number in STOPS:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._pass_on)
        self._count = count

    def run(self) -> int:
        for number in range(self._count):
            self._workers.append(self._start(number))
        while not self._stopping:
            for worker in self._workers:
                self._look_after(worker)
            time.sleep(0.2)  # signals interrupt it
        return self._end()

    def _start(self, number: int) -> _Worker:
        """Start worker `number`; its health port is the configured one plus that number."""
        port = self._health_port and self._health_port + number
        environment = environment_with("health.port", str(port))
        with held_for_child():
            process = subprocess.Popen(  # noqa: S603 - the command line of this process
                self._command,
                env=environment,
                preexec_fn=self._end_with_parent,
            )
        return _Worker(process, number, time.monotonic())

    def _look_after(self, worker: _Worker) -> None:
        code = worker.process.poll()
        if code is None:
            return
        now = time.monotonic()
        if worker.due is None:
            worker.pause = (
                FIRST_PAUSE if now - worker.started > STEADY_SECONDS else min(worker.pause * 2, LONGEST_PAUSE)
            )
            worker.due = now + worker.pause
            log.error("worker-died", code=code, pid=worker.process.pid, seconds=worker.pause)
        elif now >= worker.due:
            try:
                fresh = self._start(worker.number)
            except OSError as error:  # no memory or no process number left
                worker.due = now + worker.pause
                log.error("worker-not-started", reason=error.strerror, seconds=worker.pause)
                return
            worker.process, worker.started, worker.due = fresh.process, fresh.started, None

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number)

    def _end(self) -> int:
        # A worker that has died before, and waits for its restart, says nothing about this stop.
        living = [worker for worker in self._workers if worker.process.poll() is None]
        for worker in living:
            worker.process.send_signal(signal.SIGTERM)
        by = time.monotonic() + self._grace
        codes = [self._wait(worker, by) for worker in living]
        # A second SIGTERM, which a service manager sends to each process, may come after the handlers are gone.
        return 0 if all(code in (0, -signal.SIGTERM) for code in codes) else 1

    @staticmethod
    def _wait(worker: _Worker, by: float) -> int:
        try:
            return worker.process.wait(max(0.0, by - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("worker-killed", pid=worker.process.pid)
            worker.process.kill()
            return worker.process.wait()


def _one_worker(argv: list[str]) -> list[str]:
    """The same command line without `--workers`, run by the same interpreter."""
    kept, skip = [], False
    for word in argv[1:]:
        if skip or word.startswith("--workers="):
            skip = False
        elif word == "--workers":
            skip = True
        else:
            kept.append(word)
    return [sys.executable, "-m", "broker", *kept]
