"""Finds a RabbitMQ, or unpacks the distribution's packages into .local/ (see debian.py); starts nothing.

RABBITMQ=4 in the environment takes a newer one from a later release of the distribution, whatever is on the PATH.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from scripts.debian import Package, libraries, on_path
from scripts.processes import StartFailed
from scripts.suite import Suite, bring_own_libc

# The values of RABBITMQ: the releases of Debian that have another RabbitMQ than Debian 12 (3.10).
SUITES = {"4.0": "trixie", "4": "forky"}
# The packages to keep of all that a bare system would get: no shell tools, no init system, no Python.
WANTED = r"erlang-|rabbitmq-server$|lib(?!python|pam|systemd)"
NAME = "rabbitmq-server"
# Debian's wrapper insists on root or the user rabbitmq; the release behind it does not.
SYSTEM_RELEASES = Path("/usr/lib/rabbitmq/lib")
NO_PACKAGES = (
    "RabbitMQ is not on the PATH, and its packages could not be unpacked here ({why}).\n"
    "Install rabbitmq-server, or set AMQP_URL to a RabbitMQ that runs already."
)
NO_RELEASE = (
    "RabbitMQ {version} could not be unpacked from a later release of the distribution ({why}).\n"
    "Leave RABBITMQ unset, or set AMQP_URL and AMQP_MANAGEMENT_URL to a RabbitMQ that runs already."
)


@dataclass(frozen=True)
class Installation:
    """The folder of a RabbitMQ release's scripts, and the variables that their environment needs."""

    sbin: Path
    path: str
    libraries: str = ""

    def environment(self) -> dict[str, str]:
        env = {"PATH": self.path}
        return env | {"LD_LIBRARY_PATH": self.libraries} if self.libraries else env

    def program(self, name: str) -> str:
        """The full path of one of Erlang's programs. Raises StartFailed."""
        found = shutil.which(name, path=self.path) or next(map(str, self._erlang(f"erts-*/bin/{name}")), None)
        if found is None:
            raise StartFailed(f"{name} is not beside erl; is Erlang installed completely?")
        return found

    def binaries(self) -> list[Path]:
        """Erlang's programs that a node starts, and its module that needs OpenSSL."""
        names = ("beam.smp", "erl_child_setup", "epmd", "inet_gethost")
        more = ["lib/os_mon-*/priv/bin/*", "lib/crypto-*/priv/lib/crypto.so"]
        patterns = [*(f"erts-*/bin/{name}" for name in names), *more]
        return [file for pattern in patterns for file in self._erlang(pattern)]

    def _erlang(self, pattern: str) -> list[Path]:
        """Files in Erlang's own tree; distributions link only some of them in /usr/bin."""
        erl = shutil.which("erl", path=self.path)
        return sorted(Path(erl).resolve().parents[1].glob(pattern)) if erl else []


def installation() -> Installation:
    """The RabbitMQ that is asked for, else the one on the PATH, else the unpacked one (unpacked now if need be).

    Raises StartFailed.
    """
    if chosen := os.environ.get("RABBITMQ"):
        return _of_another_release(chosen)
    return _on_path() or _unpacked()


def _on_path() -> Installation | None:
    path = os.environ.get("PATH", os.defpath)
    found = on_path("rabbitmq-server")
    if found is None or shutil.which("erl", path=path) is None:
        return None
    releases = sorted(SYSTEM_RELEASES.glob("rabbitmq_server-*/sbin"))
    return Installation(releases[-1] if releases else Path(found).resolve().parent, path)


def _unpacked() -> Installation:
    package = Package(
        NAME, title="RabbitMQ", folder="rabbitmq", finish=_let_erlang_find_itself, sorry=NO_PACKAGES
    )
    root = package.unpacked()
    return _describe(root, libraries(root))


def _of_another_release(version: str) -> Installation:
    if version not in SUITES:
        raise StartFailed(f"RABBITMQ may be {' or '.join(SUITES)}, or not set; it is {version}")
    package = Package(
        NAME,
        title=f"RabbitMQ {version}",
        folder=f"rabbitmq-{SUITES[version]}",
        finish=_finish_with_libc,
        sorry=NO_RELEASE.replace("{version}", version),
        suite=Suite(SUITES[version], WANTED),
    )
    return _describe(package.unpacked())


def _finish_with_libc(root: Path) -> None:
    _let_erlang_find_itself(root)
    bring_own_libc(root, "usr/lib/erlang/**/bin/*")


def _describe(root: Path, found: str = "") -> Installation:
    sbin = next((root / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"))
    path = f"{root / 'usr/bin'}:{os.environ.get('PATH', os.defpath)}"
    return Installation(sbin, path, found)


def _let_erlang_find_itself(root: Path) -> None:
    """Let `erl` find its files relative to itself instead of in /usr/lib/erlang, so that the folder may be moved."""
    here = 'ROOTDIR="$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)"'
    script = root / "usr/lib/erlang/bin/erl"
    script.write_text(re.sub(r"ROOTDIR=/usr/lib/erlang", lambda _: here, script.read_text()))
