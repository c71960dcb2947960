"""Asks the dynamic loader (by `ldd`) whether programs find their shared libraries on this machine. Changes nothing."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

MISSING = re.compile(r"^\s+(\S+) => not found")
# A library that is there, but older than the one that the program was built with.
TOO_OLD = re.compile(r"version `(\S+)' not found")


def missing(files: Sequence[Path], environment: Mapping[str, str] | None = None) -> dict[str, Path]:
    """The libraries, or versions of them, that are not found; for each the first of `files` that needs it.

    `environment` is what the programs get besides this process's own, such as LD_LIBRARY_PATH. Scripts and statically
    linked programs need nothing. Empty on a machine without `ldd`.
    """
    found: dict[str, Path] = {}
    if not files:
        return found
    file = files[0]
    for line in _ldd(files, environment or {}):
        if line.endswith(":") and not line[0].isspace():  # absent when there is a single file
            file = Path(line.removesuffix(":"))
        for match in (MISSING.search(line), TOO_OLD.search(line)):
            if match:
                found.setdefault(match[1], file)
    return found


def _ldd(files: Sequence[Path], environment: Mapping[str, str]) -> list[str]:
    # ldd runs the program itself under the loader, so the order of standard output and error must stay.
    try:
        done = subprocess.run(
            ["ldd", *map(str, files)],
            env=os.environ | environment | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return []
    return [line for line in done.stdout.splitlines() if line]
