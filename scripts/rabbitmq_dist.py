"""Finds a RabbitMQ to run, or unpacks the distribution's packages (Debian and kin) into .local/ without root.

Nothing is installed and no system file is changed (see debian.py). `python -m scripts.rabbitmq_dist` does it
ahead of time and shows progress. RABBITMQ=4 in the environment takes a newer one from a later release of the
distribution instead, whatever is on the PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.debian import distribution, libraries, on_path, unpacked
from scripts.processes import StartFailed, say
from scripts.suite import Suite, bring_own_libc

# What RABBITMQ may name: the releases of Debian that have another RabbitMQ than Debian 12 (3.10).
SUITES = {"4.0": "trixie", "4": "forky"}
# Out of all that a bare system would get first: no shell tools, no init system, no Python.
WANTED = r"erlang-|rabbitmq-server$|lib(?!python|pam|systemd)"
PACKAGE = "rabbitmq-server"
# Debian's wrapper insists on root or the user rabbitmq; the release behind it does not.
SYSTEM_RELEASES = Path("/usr/lib/rabbitmq/lib")
NO_PACKAGES = (
    "RabbitMQ is not on the PATH, and its packages could not be unpacked here ({why}).\n"
    "Install rabbitmq-server, or set AMQP_URL to a server of yours."
)
NO_RELEASE = (
    "RabbitMQ {version} could not be unpacked from a later release of the distribution ({why}).\n"
    "Leave RABBITMQ unset, or set AMQP_URL and AMQP_MANAGEMENT_URL to a server of yours."
)


@dataclass(frozen=True)
class Installation:
    """Where the scripts of a RabbitMQ release are, and what the environment needs to run them."""

    sbin: Path
    path: str
    libraries: str = ""

    def environment(self) -> dict[str, str]:
        env = {"PATH": self.path}
        return env | {"LD_LIBRARY_PATH": self.libraries} if self.libraries else env

    def program(self, name: str) -> str:
        """The full path of one of Erlang's programs."""
        found = shutil.which(name, path=self.path) or _inside_erlang(self.path, name)
        if found is None:
            raise StartFailed(f"{name} is not beside erl; is Erlang installed completely?")
        return found


def installation() -> Installation:
    """The RabbitMQ that is asked for, else the one on the PATH, else the unpacked one (unpacked now if need be)."""
    if chosen := os.environ.get("RABBITMQ"):
        return _of_another_release(chosen)
    return _on_path() or _unpacked()


def _inside_erlang(path: str, name: str) -> str | None:
    """Erlang keeps epmd in its own tree when the distribution links only erl."""
    erl = shutil.which("erl", path=path)
    if erl is None:
        return None
    return next((str(found) for found in Path(erl).resolve().parents[1].glob(f"erts-*/bin/{name}")), None)


def _on_path() -> Installation | None:
    path = os.environ.get("PATH", os.defpath)
    found = on_path("rabbitmq-server")
    if found is None or shutil.which("erl", path=path) is None:
        return None
    releases = sorted(SYSTEM_RELEASES.glob("rabbitmq_server-*/sbin"))
    return Installation(releases[-1] if releases else Path(found).resolve().parent, path)


def _unpacked() -> Installation:
    root = unpacked(
        PACKAGE, distribution("rabbitmq"), title="RabbitMQ", finish=_let_erlang_find_itself, sorry=NO_PACKAGES
    )
    return _describe(root, libraries(root))


def _of_another_release(version: str) -> Installation:
    if version not in SUITES:
        raise StartFailed(f"RABBITMQ may be {' or '.join(SUITES)}, or not set; it is {version}")
    root = unpacked(
        PACKAGE,
        distribution(f"rabbitmq-{SUITES[version]}"),
        title=f"RabbitMQ {version}",
        finish=_finish_with_libc,
        sorry=NO_RELEASE.replace("{version}", version),
        suite=Suite(SUITES[version], WANTED),
    )
    return _describe(root)


def _finish_with_libc(root: Path) -> None:
    _let_erlang_find_itself(root)
    bring_own_libc(root, "usr/lib/erlang/**/bin/*")


def _describe(root: Path, found: str = "") -> Installation:
    sbin = next((root / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"))
    path = f"{root / 'usr/bin'}:{os.environ.get('PATH', os.defpath)}"
    return Installation(sbin, path, found)


def _let_erlang_find_itself(root: Path) -> None:
    """The packaged `erl` names /usr/lib/erlang; ours looks where it lies, so the folder may be moved."""
    here = 'ROOTDIR="$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)"'
    script = root / "usr/lib/erlang/bin/erl"
    script.write_text(re.sub(r"ROOTDIR=/usr/lib/erlang", lambda _: here, script.read_text()))


def main() -> int:
    try:
        say(f"RabbitMQ: {installation().sbin.parent}")
    except StartFailed as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
