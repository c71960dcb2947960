"""Finds a Chromium to test pages with, or unpacks the distribution's package (Debian and kin) into .local/ without root.

Nothing is installed and no system file is changed (see debian.py). `python -m scripts.chromium_dist` does it ahead of time
and shows progress.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from scripts.debian import distribution, libraries, on_path, unpacked
from scripts.processes import StartFailed, say

# What the generic families mean: the distribution's own rules for that may not be on this machine. The last line is for
# every family that is not here.
FONT_RULES = """\
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
  <match target="pattern"><edit name="family" mode="append_last"><string>DejaVu Sans</string></edit></match>"""
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
SORRY = (
    "Chromium is not on the PATH, and its packages could not be unpacked here ({why}).\n"
    "Install chromium; the tests look at the pages with a real browser."
)
# No sandbox of its own: it may run as root, and it only sees pages of ours on this machine. Nothing of it may look
# for the outside world by itself.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--font-render-hinting=none",
)


@dataclass(frozen=True)
class Browser:
    """A Chromium: its program, what its environment needs further, and the flags to start it with."""

    program: str
    environment: dict[str, str]
    flags: tuple[str, ...] = FLAGS


def chromium() -> Browser:
    """The Chromium on the PATH, else the unpacked one (unpacked now if need be). Raises StartFailed."""
    for name in NAMES:
        if found := on_path(name):
            return Browser(found, {})
    root = unpacked("chromium", distribution("chromium"), title="Chromium", finish=_finish, sorry=SORRY)
    return Browser(str(_program(root)), _environment(root))


def _finish(root: Path) -> None:
    _program(root)


def _program(root: Path) -> Path:
    # The packaged /usr/bin/chromium is a script that names /usr/lib/chromium; the program beside its data does not.
    return next(root.glob("usr/lib/chromium/chromium"))


def _environment(root: Path) -> dict[str, str]:
    # Some libraries keep parts of theirs in a folder of their own, and only know its installed name.
    private = {str(file.parent) for file in root.glob("usr/lib/*-linux-*/*/lib*.so*")}
    found = ":".join([libraries(root), *sorted(private)])
    return {"LD_LIBRARY_PATH": found, "FONTCONFIG_FILE": str(_fonts(root))}


def _fonts(root: Path) -> Path:
    """A fontconfig file that names the unpacked fonts and the system's own; written where the root lies now."""
    file = root / "fonts.conf"
    folders = [root / "usr/share/fonts", Path("/usr/share/fonts")]
    lines = [f"  <dir>{escape(str(folder))}</dir>" for folder in folders]
    lines.append(f"  <cachedir>{escape(str(root / 'font-cache'))}</cachedir>")
    lines.append(FONT_RULES)
    text = "\n".join(['<?xml version="1.0"?>', "<fontconfig>", *lines, "</fontconfig>", ""])
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    return file


def main() -> int:
    try:
        say(f"Chromium: {chromium().program}")
    except StartFailed as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
