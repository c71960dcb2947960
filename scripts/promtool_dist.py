"""Finds promtool and a Prometheus server, or unpacks the distribution's package (Debian and kin) into .local/.

Tests check our rules with the one, and ask the other as a dashboard would. Nothing is installed; nothing is started here.
"""

from __future__ import annotations

from pathlib import Path

from scripts.debian import distribution, libraries, on_path, unpacked

SORRY = (
    "prometheus and promtool are not on the PATH, and their package could not be unpacked here ({why}).\n"
    "Install prometheus; the tests check the alert rules with it."
)


def promtool() -> tuple[str, dict[str, str]]:
    """The program and what its environment needs. Raises StartFailed."""
    return _found("promtool")


def prometheus() -> tuple[str, dict[str, str]]:
    """The server, of the same package. Raises StartFailed."""
    return _found("prometheus")


def _found(name: str) -> tuple[str, dict[str, str]]:
    if found := on_path(name):
        return found, {}
    root = unpacked("prometheus", distribution("prometheus"), title="Prometheus", finish=_both, sorry=SORRY)
    return str(_program(root, name)), {"LD_LIBRARY_PATH": libraries(root)}


def _program(root: Path, name: str) -> Path:
    return next(root.glob(f"usr/bin/{name}"))


def _both(root: Path) -> None:
    for name in ("promtool", "prometheus"):
        _program(root, name)
