"""Unpacks packages of the distribution (Debian and its derivatives) into .local/, without root and without installing.

No system file is changed: apt-get gets folders of its own, dpkg only unpacks, and installed packages are not fetched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.processes import LOCAL, StartFailed, locked, say
from scripts.suite import Suite


@dataclass(frozen=True)
class Package:
    """A package of the distribution that is unpacked with its dependencies when it is first needed.

    `sorry` is the message when that fails; its {why} is filled in. `finish` gets the folder before the folder has its
    final name: it prepares and checks the files, and may raise OSError or StopIteration. With `suite` the package comes
    from another release of the distribution, and all its dependencies are unpacked too.
    """

    name: str
    title: str
    folder: str
    sorry: str
    finish: Callable[[Path], object] = lambda root: root
    suite: Suite | None = None

    def unpacked(self) -> Path:
        """The folder of the unpacked files; unpacked now, with progress, if it is not there. Raises StartFailed."""
        goal = LOCAL / f"{self.folder}-dist"
        if not goal.is_dir():
            with locked(goal.with_suffix(".lock"), f"waiting for another process that unpacks {self.title}"):
                if not goal.is_dir():
                    _Unpacking(self).into(goal)
        return goal

    def program(self, pattern: str) -> tuple[str, dict[str, str]]:
        """The first program that matches `pattern`, and the variables that its environment needs. Raises StartFailed."""
        root = self.unpacked()
        return str(next(root.glob(pattern))), {"LD_LIBRARY_PATH": libraries(root)}


def has(*patterns: str) -> Callable[[Path], None]:
    """A `finish` that requires a file for each pattern."""

    def finish(root: Path) -> None:
        for pattern in patterns:
            next(root.glob(pattern))

    return finish


def libraries(root: Path) -> str:
    """The LD_LIBRARY_PATH of programs that were unpacked in `root`."""
    return ":".join(map(str, [*root.glob("usr/lib/*-linux-*"), *root.glob("lib/*-linux-*")]))


def on_path(program: str) -> str | None:
    """The path of a program of the system, or None."""
    # Servers are often in folders that only root has on its PATH.
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(program, path=f"{path}:/usr/sbin:/usr/local/sbin")


class _Unpacking:
    """Fetches and unpacks one package. `Package.unpacked` holds the lock, so only one runs for each package."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._suite = package.suite

    def into(self, goal: Path) -> None:
        """Unpack beside the goal and rename at the end, so that an interrupted start leaves no half-filled goal."""
        goal.parent.mkdir(exist_ok=True)
        prefix = f"unpack-{goal.name}-"
        for left in goal.parent.glob(f"{prefix}*"):  # the lock is held: the process that made it is gone
            shutil.rmtree(left)
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=goal.parent))
        try:
            root = work / "root"
            root.mkdir()
            for package in self._download(work):
                self._run("dpkg", "-x", str(package), str(root))
            self._package.finish(root)
            root.rename(goal)
            say(f"{self._package.title} is unpacked in {goal}")
        except (OSError, StopIteration) as error:
            raise self._failed(f"{type(error).__name__}: {error}") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _download(self, work: Path) -> list[Path]:
        title = self._package.title
        for folder in ("state/lists/partial", "cache/archives/partial", "packages"):
            (work / folder).mkdir(parents=True)
        if self._suite:
            self._suite.write_sources(work / "sources")
            say(f"{title}: reading the package lists of the distribution's release {self._suite.name}")
        else:
            say(f"{title} is not on this machine: reading the distribution's package lists")
        self._apt(work, "update")
        planned = self._apt(work, "--simulate", "install", self._package.name)
        missing = re.findall(r"^Inst (\S+)", planned, re.MULTILINE)
        if self._suite:
            missing = [name for name in missing if re.match(self._suite.wanted, name)]
        if not missing:
            raise self._failed(f"apt-get would install nothing for {self._package.name}")
        say(f"downloading {len(missing)} packages for {title}")
        self._apt(work, "download", *missing)  # `install --download-only` would want the system's lock
        packages = sorted((work / "packages").glob("*.deb"))
        say(f"unpacking {len(packages)} packages")
        return packages

    def _apt(self, work: Path, *arguments: str) -> str:
        own = {
            "Dir::State": str(work / "state"),
            # The system's own list of installed packages: their files need not be unpacked.
            "Dir::State::status": "/var/lib/dpkg/status",
            "Dir::Cache": str(work / "cache"),
            "APT::Sandbox::User": "",
            "Acquire::Retries": "3",
        }
        if self._suite:
            own |= {
                "Dir::State::status": "/dev/null",
                "Dir::Etc::sourcelist": "/dev/null",
                "Dir::Etc::sourceparts": str(work / "sources"),
            }
        options = [part for key, value in own.items() for part in ("-o", f"{key}={value}")]
        command = ["apt-get", "-q", "-y", "--no-install-recommends", *options, *arguments]
        return self._run(*command, cwd=work / "packages")

    def _run(self, *command: str, cwd: Path | None = None) -> str:
        env = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
            raise self._failed(f"{command[0]} failed:\n{last}\n")
        return done.stdout

    def _failed(self, why: str) -> StartFailed:
        return StartFailed(self._package.sorry.format(why=why))
