"""Finds an nginx, or unpacks the distribution's package into .local/ (see debian.py); starts nothing.

Tests deliver reports to it, as a web server that this project did not write.
"""

from __future__ import annotations

from scripts.debian import Package, has, on_path

PROGRAM = "usr/sbin/nginx"
PACKAGE = Package(
    "nginx",
    title="nginx",
    folder="nginx",
    finish=has(PROGRAM),
    sorry="nginx is not on the PATH, and its package could not be unpacked here ({why}).\n"
    "Install nginx; the tests deliver to it.",
)


def nginx() -> tuple[str, dict[str, str]]:
    """The program, and the variables that its environment needs. Raises StartFailed."""
    if found := on_path("nginx"):
        return found, {}
    return PACKAGE.program(PROGRAM)
