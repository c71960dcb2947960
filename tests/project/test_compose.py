"""compose.yaml: each broker command in it, also in its comments, gets settings and a directory that can be used."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.servers import Sandbox
from scripts.processes import ROOT

COMPOSE = ROOT / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
PROGRAM = "jobnet-broker"
IMAGE = "jobnet-broker:dev"
DIRECTORY = "/var/lib/jobnet/directory"


@dataclass(frozen=True)
class Command:
    """One command line of the broker, and the service whose container runs it."""

    service: str
    words: tuple[str, ...]

    @property
    def options(self) -> tuple[str, ...]:
        """What stands before the command's name: the options that choose settings and directory."""
        words = list(self.words)
        count = 0
        while words[count].startswith("-"):
            count += 1 if "=" in words[count] else 2
        return self.words[:count]


def in_services() -> Iterator[Command]:
    for name, service in SERVICES.items():
        if service["image"] == IMAGE and "entrypoint" not in service:
            yield Command(name, tuple(service["command"]))
        script = service["command"] if service.get("entrypoint", [""])[0] == "sh" else []
        for line in "\n".join(script).splitlines():
            if line.startswith(PROGRAM):
                yield Command(name, tuple(shlex.split(line)[1:]))
        check = service.get("healthcheck", {}).get("test", [])
        if check[1:2] == [PROGRAM]:
            yield Command(name, tuple(check[2:]))


def in_comments() -> Iterator[Command]:
    for line in COMPOSE.read_text().splitlines():
        if found := re.search(rf"#.*docker compose exec (\S+) {PROGRAM} ([^`]+)", line):
            yield Command(found[1], tuple(shlex.split(found[2])))


COMMANDS = [*in_services(), *in_comments()]


async def the_sandbox_writes_its_directory(folder: Path) -> None:
    async with Sandbox() as sandbox:
        sandbox.write_directory(folder / "directory.toml", host="sandbox")


def check_configuration(command: Command, directory: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """`config check` with the options and environment of this command, and the files that its container sees."""
    service = SERVICES[command.service]
    mounted = any(volume.split(":")[1] == DIRECTORY for volume in service["volumes"])
    places = {"/etc/jobnet": str(ROOT / "config"), DIRECTORY: str(directory if mounted else folder / "empty")}

    def here(text: str) -> str:
        for place, path in places.items():
            text = text.replace(place, path)
        return text

    environment = {key: here(value) for key, value in service["environment"].items()}
    return subprocess.run(
        [sys.executable, "-m", "broker", *map(here, command.options), "config", "check"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_mention_of_a_command_is_found() -> None:
    assert {command.service for command in COMMANDS} == {"prepare", "broker", "console"}
    text = COMPOSE.read_text().replace(
        f"`{PROGRAM} config keys`", ""
    )  # needs neither settings nor a directory
    written = re.findall(rf"{PROGRAM} --?[a-z]", text)
    assert len([*in_comments(), *(each for each in in_services() if each.service == "prepare")]) == len(
        written
    )


@pytest.mark.integration
@pytest.mark.parametrize("service", sorted({command.service for command in COMMANDS}))
@pytest.mark.integration
async def test_settings_and_directory_of_every_command_can_be_used(service: str, tmp_path: Path) -> None:
    directory = tmp_path / "directory"
    await the_sandbox_writes_its_directory(directory)
    wanted = {command.options: command for command in COMMANDS if command.service == service}
    for command in wanted.values():
        done = check_configuration(command, directory, tmp_path)
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
        assert f"{len(Sandbox().layout.jobcenters)} jobcenters" in done.stdout


def test_the_directory_is_written_before_a_command_reads_it() -> None:
    assert SERVICES["prepare"]["depends_on"]["sandbox"] == {"condition": "service_healthy"}
    for service in ("broker", "console"):
        assert SERVICES[service]["depends_on"]["prepare"] == {"condition": "service_completed_successfully"}


def test_the_image_is_built_once_and_never_fetched() -> None:
    users = {name: service for name, service in SERVICES.items() if service["image"] == IMAGE}
    assert [name for name, service in users.items() if "build" in service] == ["sandbox"]
    assert {service["pull_policy"] for service in users.values()} == {"never", "build"}


def test_every_server_starts_again_after_a_crash_or_a_reboot() -> None:
    restarts = {name: service["restart"] for name, service in SERVICES.items()}
    assert restarts.pop("prepare") == "no"
    assert set(restarts.values()) == {"unless-stopped"}
