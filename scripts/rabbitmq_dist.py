"""Finds a RabbitMQ to run, or unpacks the distribution's packages (Debian and kin) into .local/ without root.

Nothing is installed and no system file is changed (see debian.py). `python -m scripts.rabbitmq_dist` does it
ahead of time and shows progress.
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

DIST = distribution("rabbitmq")
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
    found = on_path("rabbitmq-server")
    if found is None or shutil.which("erl", path=path) is None:
        return None
    releases = sorted(SYSTEM_RELEASES.glob("rabbitmq_server-*/sbin"))
    return Installation(releases[-1] if releases else Path(found).resolve().parent, path)


def _unpacked() -> Installation:
    return _describe(unpacked(PACKAGE, DIST, title="RabbitMQ", finish=_finish, sorry=NO_PACKAGES))


def _finish(root: Path) -> None:
    _let_erlang_find_itself(root)
    _describe(root)


def _describe(root: Path) -> Installation:
    sbin = next((root / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin"))
    path = f"{root / 'usr/bin'}:{os.environ.get('PATH', os.defpath)}"
    return Installation(sbin, path, libraries(root))


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
