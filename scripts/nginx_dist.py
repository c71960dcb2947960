"""Finds an nginx to run, or unpacks the distribution's package (Debian and kin) into .local/ without root.

Tests deliver to it as a server that is not ours. Nothing is installed; nothing is started here.
"""

from __future__ import annotations

from pathlib import Path

from scripts.debian import distribution, libraries, on_path, unpacked

SORRY = (
    "nginx is not on the PATH, and its package could not be unpacked here ({why}).\n"
    "Install nginx; the tests need a server that is not ours."
)


def nginx() -> tuple[str, dict[str, str]]:
    """The program and what its environment needs. Raises StartFailed."""
    if found := on_path("nginx"):
        return found, {}
    root = unpacked("nginx", distribution("nginx"), title="nginx", finish=_program, sorry=SORRY)
    return str(_program(root)), {"LD_LIBRARY_PATH": libraries(root)}


def _program(root: Path) -> Path:
    return next(root.glob("usr/sbin/nginx"))
