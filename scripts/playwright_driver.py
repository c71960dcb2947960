"""Lets Playwright's driver, a Node.js inside the wheel, start on a machine without libatomic, such as a minimal Debian.

The library is unpacked from the distribution's package into .local/ (see debian.py); nothing is installed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from scripts.debian import Package, libraries
from scripts.processes import StartFailed
from scripts.shared_libraries import missing

LIBRARY = "libatomic.so.1"
PACKAGE = Package(
    "libatomic1",
    title="libatomic",
    folder="libatomic",
    sorry=f"Playwright's driver needs {LIBRARY}, and its package could not be unpacked here ({{why}}).\n"
    "Install libatomic1; the tests drive a browser with it.",
)


def node() -> Path:
    """The driver's program. Raises StartFailed when Playwright is not installed."""
    found = importlib.util.find_spec("playwright")
    if found is None or not found.submodule_search_locations:
        raise StartFailed("Playwright is not installed; `make test` installs it")
    return Path(found.submodule_search_locations[0]) / "driver" / "node"


def environment() -> dict[str, str]:
    """The variables that the driver's environment needs; empty where the library is installed. Raises StartFailed."""
    if LIBRARY not in missing([node()]):
        return {}
    return {"LD_LIBRARY_PATH": libraries(PACKAGE.unpacked())}
