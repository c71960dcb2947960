"""Starts and stops everything that `make run` needs: RabbitMQ, PostgreSQL, sandbox, broker, Jobnet page, console.

Each process runs under a keeper (scripts/keeper.py), which ends it when this process ends.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.postgres import PostgresNode
from scripts.processes import LOCAL, ROOT, Kept, StartFailed, free_port, listens, locked, say, wait_until
from scripts.rabbitmq import RabbitNode

FOLDER = LOCAL / "play"
CONFIG = ROOT / "config" / "sandbox.toml"
DIRECTORY = FOLDER / "directory.toml"
LEDGER = "day"
HEALTH_PORT = "JOBNET_BROKER__HEALTH__PORT"
START_S = 60.0
COMMAND_S = 120.0


@dataclass(frozen=True)
class Services:
    """The addresses of everything that runs, the broker's process and the broker's environment."""

    amqp_url: str
    desk_url: str
    jobnet_url: str
    console_url: str
    health_url: str
    broker: Kept
    environment: dict[str, str]


def development_keys() -> Path:
    """A file with keys for this machine only. It is made once and readable by its owner only."""
    file = LOCAL / "development-keys.json"
    if not file.exists():
        key = {
            name: {"dev": base64.b64encode(secrets.token_bytes(32)).decode()}
            for name in ("sealing", "tokens")
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as opened:
            json.dump(key | {"seal_with": "dev", "token_order": ["dev"]}, opened)
    return file


@contextlib.contextmanager
def running_services() -> Iterator[Services]:
    """Start everything; stop everything at the end. Raises StartFailed with the end of a log."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(LOCAL / "play.lock", "another `make run` is running; waiting for its end"))
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        amqp_url = os.environ.get("AMQP_URL") or _rabbitmq(stack)
        dsn = os.environ.get("JOBNET_BROKER__LEDGER__DSN") or _postgresql(stack)
        desk_url = _sandbox(stack)
        environment = {
            "JOBNET_BROKER__RABBITMQ__URL": amqp_url,
            "JOBNET_BROKER__LEDGER__DSN": dsn,
            "JOBNET_BROKER__KEYS_FILE": str(development_keys()),
            HEALTH_PORT: os.environ.get(HEALTH_PORT) or str(free_port()),
        }
        _command(environment, "topology", "apply")
        _command(environment, "ledger", "upgrade")
        say("starting the broker")
        broker = Kept(
            broker_command("run"),
            log=FOLDER / "broker.telemetry.log",
            env=os.environ | environment,
            grace_s=30,
        )
        stack.callback(broker.stop)
        jobnet_url = _jobnet(stack, amqp_url, desk_url)
        console_url = _console(stack, environment)
        health_url = f"http://127.0.0.1:{environment[HEALTH_PORT]}"
        yield Services(amqp_url, desk_url, jobnet_url, console_url, health_url, broker, environment)


def _rabbitmq(stack: contextlib.ExitStack) -> str:
    say("starting a private RabbitMQ (the first time, its packages are fetched: about 60 MB)")
    node = RabbitNode(FOLDER / "rabbit")
    # Registered before the start, because the start may be interrupted. Its data need not survive the run.
    stack.callback(node.kill)
    node.start()
    say(f"RabbitMQ is up; management at {node.management_url}")
    return node.amqp_url


def _postgresql(stack: contextlib.ExitStack) -> str:
    say("starting a private PostgreSQL")
    node = PostgresNode(LOCAL / "play-ledger")
    stack.callback(node.stop)
    node.start()
    # Reports left in the ledger of an earlier run would be delivered to the suppliers of this run.
    node.drop_database(LEDGER)
    return node.create_database(LEDGER)


def _sandbox(stack: contextlib.ExitStack) -> str:
    say("starting the sandbox")
    port = free_port()
    command = [sys.executable, "-m", "sandbox.servers", f"--desk-port={port}", f"--directory-out={DIRECTORY}"]
    log = FOLDER / "sandbox.log"
    sandbox = Kept(command, log=log, env=dict(os.environ), grace_s=5)
    stack.callback(sandbox.stop)
    wait_until(DIRECTORY.exists, sandbox, timeout_s=START_S, what="the sandbox", log=log)
    return f"http://127.0.0.1:{port}"


def _jobnet(stack: contextlib.ExitStack, amqp_url: str, desk_url: str) -> str:
    say("starting the Jobnet page")
    port = free_port()
    command = [sys.executable, "-m", "sandbox.jobnet", f"--port={port}", f"--desk={desk_url}"]
    log = FOLDER / "jobnet.log"
    # In the environment, because the address contains the password and command lines are visible to other users.
    jobnet = Kept(command, log=log, env=os.environ | {"AMQP_URL": amqp_url}, grace_s=5)
    stack.callback(jobnet.stop)
    wait_until(lambda: listens(port), jobnet, timeout_s=START_S, what="the Jobnet page", log=log)
    return f"http://127.0.0.1:{port}"


def _console(stack: contextlib.ExitStack, environment: dict[str, str]) -> str:
    """Adds the port to `environment`, so that `console link` makes a link to this console."""
    say("starting the operators' console")
    port = free_port()
    environment["JOBNET_BROKER__CONSOLE__PORT"] = str(port)
    log = FOLDER / "console.log"
    console = Kept(broker_command("console"), log=log, env=os.environ | environment, grace_s=5)
    stack.callback(console.stop)
    wait_until(lambda: listens(port), console, timeout_s=START_S, what="the console", log=log)
    return f"http://127.0.0.1:{port}"


def login_link(services: Services) -> str:
    """A one-time link that logs in to the console with every role. Raises StartFailed."""
    roles = [f"--role={role}" for role in ("operator", "privacy", "admin")]
    return _command(services.environment, "console", "link", "--as", "you", *roles).strip()


def broker_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "broker", "--config", str(CONFIG), "--directory", str(DIRECTORY), *words]


def _command(environment: dict[str, str], *words: str) -> str:
    """Run one of the broker's commands and return its output. Raises StartFailed if it fails."""
    finished = subprocess.run(  # noqa: S603 - the words are written above
        broker_command(*words),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    if finished.returncode != 0:
        raise StartFailed(f"jobnet-broker {' '.join(words)} failed:\n{finished.stdout}{finished.stderr}")
    return finished.stdout
