"""A small process between its owner and a server, so that the server never outlives the owner.

It runs the command. It ends the command on a byte on standard input, when the owner is gone (end of that input, or
another parent process), or on SIGTERM. Then it kills all processes that the server left: as the "subreaper" of its
descendants it becomes the parent of orphans. It restarts nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
TICK_S = 0.2
STOP, KILL = b"s", b"k"

terminated: list[bool] = []


def prctl(option: int, value: int) -> None:
    """The system call prctl; nothing outside Linux, where only the input pipe tells that the owner is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def die_with_keeper() -> None:
    """In the child: let the kernel kill the server when the keeper is killed."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Start the server in this session; its output goes to standard error, which is a log file."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,
        preexec_fn=die_with_keeper,  # safe: the keeper has one thread
    )


def wait_for_order(child: subprocess.Popen[bytes], parent: int) -> bytes:
    """Wait for an order: STOP or KILL, or empty when the server ended by itself."""
    while child.poll() is None:
        readable, _, _ = select.select([0], [], [], TICK_S)
        if readable:
            return os.read(0, 1) or STOP
        if terminated or os.getppid() != parent:
            return STOP
    return b""


def end(child: subprocess.Popen[bytes], stop_signal: int, grace_s: float) -> None:
    """Send the signal; kill the server if it still runs after `grace_s` seconds."""
    child.send_signal(stop_signal)
    try:
        child.wait(grace_s)
    except subprocess.TimeoutExpired:
        child.kill()


def sweep() -> None:
    """Kill all descendants, until there are none; children of a killed process become the keeper's children."""
    until = time.monotonic() + 10
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < until:
        for process in left:
            try:
                process.kill()
                process.wait(1)
            except psutil.Error:
                continue


def arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--signal", type=int, default=signal.SIGTERM)
    options.add_argument("--grace", type=float, default=20.0, help="seconds between the signal and the kill")
    options.add_argument("command", nargs="+")
    return options.parse_args()


def main() -> int:
    chosen = arguments()
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: terminated.append(True))
    parent = os.getppid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = start(chosen.command)
    print(child.pid, flush=True)
    order = wait_for_order(child, parent)
    if order == STOP:
        end(child, chosen.signal, chosen.grace)
    elif order == KILL:
        child.kill()
    code = child.wait()
    sweep()
    return abs(code)


if __name__ == "__main__":
    sys.exit(main())
