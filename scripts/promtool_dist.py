"""Finds Prometheus and promtool, or unpacks the distribution's package into .local/ (see debian.py); starts nothing.

Tests check the alert rules with promtool, and query a Prometheus server as the dashboard does.
"""

from __future__ import annotations

from scripts.debian import Package, has, on_path

PACKAGE = Package(
    "prometheus",
    title="Prometheus",
    folder="prometheus",
    finish=has("usr/bin/promtool", "usr/bin/prometheus"),
    sorry="prometheus and promtool are not on the PATH, and their package could not be unpacked here ({why}).\n"
    "Install prometheus; the tests check the alert rules with it.",
)


def promtool() -> tuple[str, dict[str, str]]:
    """The program, and the variables that its environment needs. Raises StartFailed."""
    return _found("promtool")


def prometheus() -> tuple[str, dict[str, str]]:
    """The server, of the same package. Raises StartFailed."""
    return _found("prometheus")


def _found(name: str) -> tuple[str, dict[str, str]]:
    if found := on_path(name):
        return found, {}
    return PACKAGE.program(f"usr/bin/{name}")
