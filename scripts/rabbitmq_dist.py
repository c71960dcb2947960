"""Finds a RabbitMQ to run, or unpacks the distribution's packages (Debian and kin) into .local/ without root.

Nothing is installed and no system file is changed: apt-get gets folders of its own, dpkg only unpacks.
`python -m scripts.rabbitmq_dist` does it ahead of time and shows progress.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scripts.processes import LOCAL, StartFailed, locked, say

DIST = LOCAL / "rabbitmq-dist"
PACKAGE = "rabbitmq-server"
# Debian's wrapper insists on root or the user rabbitmq; the release behind it does not.
SYSTEM_RELEASES = Path("/usr/lib/rabbitmq/lib")
NO_PACKAGES = (
    "RabbitMQ is not on the PATH, and its packages could not be unpacked here ({why}).\n"
    "Install rabbitmq-server, or set AMQP_URL to a server of yours."
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
    """The RabbitMQ on the PATH, else the unpacked one (unpacked now if need be)."""
    return _on_path() or _unpacked()


def _inside_erlang(path: str, name: str) -> str | None:
    """Erlang keeps epmd in its own tree when the distribution links only erl."""
    erl = shutil.which("erl", path=path)
    if erl is None:
        return None
    return next((str(found) for found in Path(erl).resolve().parents[1].glob(f"erts-*/bin/{name}")), None)


def _on_path() -> Installation | None:
    path = os.environ.get("PATH", os.defpath)
    found = shutil.which("rabbitmq-server", path=f"{path}:/usr/sbin:/usr/local/sbin")
    if found is None or shutil.which("erl", path=path) is None:
        return None
    releases = sorted(SYSTEM_RELEASES.glob("rabbitmq_server-*/sbin"))
    return Installation(releases[-1] if releases else Path(found).resolve().parent, path)


def _unpacked() -> Installation:
    if not DIST.is_dir():
        with locked(DIST.with_suffix(".lock"), "waiting for another start that unpacks RabbitMQ"):
            if not DIST.is_dir():
                _unpack()
    return _describe(DIST)


def _describe(root: Path) -> Installation:
    sbin = next((root / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"))
    libraries = [*root.glob("usr/lib/*-linux-*"), *root.glob("lib/*-linux-*")]
    path = f"{root / 'usr/bin'}:{os.environ.get('PATH', os.defpath)}"
    return Installation(sbin, path, ":".join(map(str, libraries)))


def _unpack() -> None:
    """Unpack beside the goal and rename at the end, so that an interrupted start leaves nothing half done."""
    LOCAL.mkdir(exist_ok=True)
    for left in LOCAL.glob("unpack-*"):  # we hold the lock: whoever made it is gone
        shutil.rmtree(left)
    work = Path(tempfile.mkdtemp(prefix="unpack-", dir=LOCAL))
    try:
        root = work / "root"
        root.mkdir()
        for package in _download(work):
            _run("dpkg", "-x", str(package), str(root))
        _let_erlang_find_itself(root)
        _describe(root)
        root.rename(DIST)
        say(f"RabbitMQ is unpacked in {DIST}")
    except (OSError, StopIteration) as error:
        raise StartFailed(NO_PACKAGES.format(why=f"{type(error).__name__}: {error}")) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(work: Path) -> list[Path]:
    for folder in ("state/lists/partial", "cache/archives/partial", "packages"):
        (work / folder).mkdir(parents=True)
    say("RabbitMQ is not on the PATH: reading the distribution's package lists")
    _apt(work, "update")
    # What the system has already is not needed again: its own status file is read.
    missing = re.findall(r"^Inst (\S+)", _apt(work, "--simulate", "install", PACKAGE), re.MULTILINE)
    if not missing:
        raise StartFailed(NO_PACKAGES.format(why=f"apt-get would install nothing for {PACKAGE}"))
    say(f"downloading {len(missing)} packages of RabbitMQ and Erlang (about 35 to 60 MB)")
    _apt(work, "download", *missing)  # `install --download-only` would want the system's lock
    packages = sorted((work / "packages").glob("*.deb"))
    say(f"unpacking {len(packages)} packages")
    return packages


def _apt(work: Path, *arguments: str) -> str:
    own = {
        "Dir::State": str(work / "state"),
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": str(work / "cache"),
        "APT::Sandbox::User": "",
        "Acquire::Retries": "3",
    }
    options = [part for key, value in own.items() for part in ("-o", f"{key}={value}")]
    command = ["apt-get", "-q", "-y", "--no-install-recommends", *options, *arguments]
    return _run(*command, cwd=work / "packages")


def _run(*command: str, cwd: Path | None = None) -> str:
    env = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise StartFailed(NO_PACKAGES.format(why=f"{command[0]} failed:\n{last}\n"))
    return done.stdout


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
