"""Starts and stops each contestant. The broker runs as in production: its command `run`, nothing stubbed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import job
from bench.servers import Workspace, contestant_cores
from config.settings import generate_keys
from scripts.processes import LOCAL, StartFailed, tail

ROOT = Path(__file__).parents[1]
PYTHON = os.environ.get("BENCH_PYTHON") or str(LOCAL / "bench-venv" / "bin" / "python")
START_S, STOP_S = 60.0, 40.0
KEYS = generate_keys()
"""The broker's keys in every run; waiting_reports.py seals its rows with them."""

DIRECTORY_HEAD = """
[planners.planner]
base_url = "{url}/planner"
allow_http = true
"""
DIRECTORY_SYSTEM = """
[booking_systems.s{code}]
base_url = "{system_url}/s{code}"
allow_http = true
quiet_ms = 0
[suppliers.f{code}]
name = "Supplier {code}"
base_url = "{supplier_url}/f{code}"
allow_http = true
window = 100
in_flight = 50
rate_per_second = 10000
[jobcenters.{code}]
name = "Jobcenter {code}"
planner = "planner"
booking_system = "s{code}"
supplier = "f{code}"
"""


@dataclass(frozen=True)
class Setting:
    """The settings of a run that differ from the default."""

    prefetch: int = 200
    processes: int = 1
    toml: Mapping[str, Mapping[str, float | int | str]] = field(default_factory=dict)
    dead_system: str | None = None
    dead_supplier: str | None = None
    module: str = "broker"
    root: Path = ROOT
    before: Callable[[Workspace], None] | None = None


@dataclass
class RunningContestant:
    """The process and log of a contestant that is ready."""

    popen: subprocess.Popen[bytes]
    log: Path


@dataclass(frozen=True)
class Contestant:
    """One contestant.

    `prepare` returns its command and environment; `is_ready` says whether a log line means ready; `envelope` is the
    message format of its requests and `answers` its answer queue.
    """

    name: str
    prepare: Callable[[Workspace, Setting], tuple[list[str], dict[str, str]]]
    is_ready: Callable[[str], bool]
    envelope: str = "plain"
    answers: str = job.ANSWERS

    @contextlib.contextmanager
    def running(self, workspace: Workspace, setting: Setting) -> Iterator[RunningContestant]:
        """Start it on its own core and wait until it is ready; stop it at the end. Raises StartFailed."""
        command, environment = self.prepare(workspace, setting)
        log = workspace.folder / f"{self.name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                command,
                cwd=setting.root,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        os.sched_setaffinity(popen.pid, contestant_cores(setting.processes))
        try:
            self._wait(popen, log, setting)
            yield RunningContestant(popen, log)
        finally:
            _end(popen)

    def _wait(self, popen: subprocess.Popen[bytes], log: Path, setting: Setting) -> None:
        deadline = time.monotonic() + START_S
        while sum(map(self.is_ready, log.read_text(errors="replace").splitlines())) < setting.processes:
            if popen.poll() is not None or time.monotonic() > deadline:
                raise StartFailed(f"{self.name} did not become ready:\n{tail(log)}")
            time.sleep(0.1)


def _end(popen: subprocess.Popen[bytes]) -> None:
    popen.terminate()
    try:
        popen.wait(STOP_S)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()


# -- the broker ------------------------------------------------------------------------------------------------


def write_configuration(workspace: Workspace, setting: Setting) -> Path:
    """Write broker.toml with default settings except the prefetch, and a directory of twenty jobcenters.

    Each jobcenter has its own booking system and supplier.
    """
    tables: dict[str, dict[str, float | int | str]] = {
        "queues": {"bookings_prefetch": setting.prefetch, "queries_prefetch": setting.prefetch}
    }
    for name, values in setting.toml.items():
        tables.setdefault(name, {}).update(values)
    lines = [
        f"[{t}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in rows.items())
        for t, rows in tables.items()
    ]
    config = workspace.folder / "broker.toml"
    config.write_text("\n".join(lines))
    url = workspace.servers.stub.url
    text = DIRECTORY_HEAD.format(url=url)
    for number in range(job.SYSTEMS):
        is_last = number == job.SYSTEMS - 1
        text += DIRECTORY_SYSTEM.format(
            code=job.jobcenter_of(number),
            system_url=setting.dead_system if is_last and setting.dead_system else url,
            supplier_url=setting.dead_supplier if is_last and setting.dead_supplier else url,
        )
    (workspace.folder / "directory.toml").write_text(text)
    return config


def _broker(workspace: Workspace, setting: Setting) -> tuple[list[str], dict[str, str]]:
    config = write_configuration(workspace, setting)
    keys = {
        f"JOBNET_BROKER__KEYS__{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in KEYS.items()
    }
    environment = workspace.environment(
        **keys,
        JOBNET_BROKER__RABBITMQ__URL=workspace.amqp_url,
        JOBNET_BROKER__LEDGER__DSN=workspace.dsn,
        JOBNET_BROKER__LOG__FORMAT="json",
    )
    command = [sys.executable, "-m", setting.module, "--config", str(config)]
    for words in (("topology", "apply"), ("ledger", "upgrade")):
        subprocess.run(
            [*command, *words], cwd=setting.root, env=environment, check=True, stdout=subprocess.DEVNULL
        )
    if setting.before:
        setting.before(workspace)
    workers = ["--workers", str(setting.processes)] if setting.processes > 1 else []
    return [*command, "run", *workers], environment


def _broker_is_ready(line: str) -> bool:
    with contextlib.suppress(ValueError):
        row = json.loads(line)
        return row.get("event") == "readiness" and bool(row.get("ready"))
    return False


# -- the other contestants -------------------------------------------------------------------------------------


def _bare_delivery(workspace: Workspace, setting: Setting) -> tuple[list[str], dict[str, str]]:
    workspace.queue(job.REPORTS)
    return [sys.executable, "-m", "bench.contestants.bare_delivery"], _environment(workspace, setting)


def _bare(workspace: Workspace, setting: Setting) -> tuple[list[str], dict[str, str]]:
    workspace.declare_requests()
    return [sys.executable, "-m", "bench.contestants.bare"], _environment(workspace, setting)


def _faststream(workspace: Workspace, setting: Setting) -> tuple[list[str], dict[str, str]]:
    workspace.declare_requests()
    words = ["faststream", "run", "bench.contestants.faststream_app:app"]
    return [PYTHON, "-m", *words], _environment(workspace, setting)


def _dramatiq(workspace: Workspace, setting: Setting) -> tuple[list[str], dict[str, str]]:
    words = ["dramatiq", "bench.contestants.dramatiq_app", "--queues", job.BOOKINGS]
    words += ["--processes", str(setting.processes), "--threads", "8"]
    return [PYTHON, "-m", *words], _environment(workspace, setting)


def _celery(workspace: Workspace, setting: Setting) -> tuple[list[str], dict[str, str]]:
    words = ["celery", "-A", "bench.contestants.celery_app", "worker", "-Q", job.BOOKINGS]
    words += ["--pool=threads", "--concurrency=8", "--loglevel=INFO"]
    return [PYTHON, "-m", *words], _environment(workspace, setting)


def _environment(workspace: Workspace, setting: Setting) -> dict[str, str]:
    return workspace.environment(BENCH_PREFETCH=str(setting.prefetch))


BARE_DELIVERY = Contestant("bare", _bare_delivery, lambda line: line == "ready")
CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant("jobnet-broker", _broker, _broker_is_ready),
        Contestant("bare", _bare, lambda line: line == "ready"),
        Contestant("faststream", _faststream, lambda line: "app started successfully" in line),
        Contestant(
            "dramatiq", _dramatiq, lambda line: "ready for action" in line, "dramatiq", "dramatiq.answers"
        ),
        Contestant("celery", _celery, lambda line: line.endswith(" ready."), "celery"),
    )
}
