"""Unpacks packages of the distribution (Debian and kin) into a folder of ours, without root and without installing.

No system file is changed: apt-get gets folders of its own, dpkg only unpacks, and what the system has already is
not fetched again. What to do with the unpacked files is the caller's business.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from scripts.processes import LOCAL, StartFailed, locked, say
from scripts.suite import Suite


def unpacked(
    package: str,
    goal: Path,
    *,
    title: str,
    finish: Callable[[Path], object],
    sorry: str,
    suite: Suite | None = None,
) -> Path:
    """The folder `goal` with `package` and what it needs in it; unpacked now, with progress, if it is not there.

    Of another release than the installed one with `suite`: then nothing of the system's is taken to be there.
    `finish` is called with the folder before it gets its name: it prepares and checks it, and may raise OSError or
    StopIteration. Raises StartFailed with `sorry`, whose {why} is filled in.
    """
    if not goal.is_dir():
        with locked(goal.with_suffix(".lock"), f"waiting for another start that unpacks {title}"):
            if not goal.is_dir():
                _Unpacking(package, title, sorry, suite).into(goal, finish)
    return goal


def libraries(root: Path) -> str:
    """What LD_LIBRARY_PATH needs for programs that were unpacked in `root`."""
    return ":".join(map(str, [*root.glob("usr/lib/*-linux-*"), *root.glob("lib/*-linux-*")]))


class _Unpacking:
    """One package on its way. Only one at a time for each package: `unpacked` holds the lock."""

    def __init__(self, package: str, title: str, sorry: str, suite: Suite | None) -> None:
        self._package = package
        self._title = title
        self._sorry = sorry
        self._suite = suite

    def into(self, goal: Path, finish: Callable[[Path], object]) -> None:
        """Unpack beside the goal and rename at the end, so that an interrupted start leaves nothing half done."""
        goal.parent.mkdir(exist_ok=True)
        prefix = f"unpack-{goal.name}-"
        for left in goal.parent.glob(f"{prefix}*"):  # we hold the lock: whoever made it is gone
            shutil.rmtree(left)
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=goal.parent))
        try:
            root = work / "root"
            root.mkdir()
            for package in self._download(work):
                self._run("dpkg", "-x", str(package), str(root))
            finish(root)
            root.rename(goal)
            say(f"{self._title} is unpacked in {goal}")
        except (OSError, StopIteration) as error:
            raise self._failed(f"{type(error).__name__}: {error}") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _download(self, work: Path) -> list[Path]:
        for folder in ("state/lists/partial", "cache/archives/partial", "packages"):
            (work / folder).mkdir(parents=True)
        if self._suite:
            self._suite.write_sources(work / "sources")
            say(f"{self._title}: reading the package lists of the distribution's release {self._suite.name}")
        else:
            say(f"{self._title} is not on the PATH: reading the distribution's package lists")
        self._apt(work, "update")
        planned = self._apt(work, "--simulate", "install", self._package)
        missing = re.findall(r"^Inst (\S+)", planned, re.MULTILINE)
        if self._suite:
            missing = [name for name in missing if re.match(self._suite.wanted, name)]
        if not missing:
            raise self._failed(f"apt-get would install nothing for {self._package}")
        say(f"downloading {len(missing)} packages for {self._title}")
        self._apt(work, "download", *missing)  # `install --download-only` would want the system's lock
        packages = sorted((work / "packages").glob("*.deb"))
        say(f"unpacking {len(packages)} packages")
        return packages

    def _apt(self, work: Path, *arguments: str) -> str:
        own = {
            "Dir::State": str(work / "state"),
            # What the system has already is not needed again: its own status file is read.
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
        return StartFailed(self._sorry.format(why=why))


def on_path(program: str) -> str | None:
    """Where a program of the system is; servers are often in folders that only root has on its PATH."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(program, path=f"{path}:/usr/sbin:/usr/local/sbin")


def distribution(name: str) -> Path:
    """Where the unpacked packages of `name` are kept."""
    return LOCAL / f"{name}-dist"
