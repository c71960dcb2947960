"""Finds a Chromium for the browser tests, or unpacks the distribution's package into .local/; starts nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from scripts.debian import Package, has, libraries, on_path

# The families behind the generic names; this machine may lack the distribution's own rules for them. The last line is
# for every family that is not installed.
FONT_RULES = """\
  <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
  <match target="pattern"><edit name="family" mode="append_last"><string>DejaVu Sans</string></edit></match>"""
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# The packaged /usr/bin/chromium is a script that names /usr/lib/chromium; the program beside its data does not.
PROGRAM = "usr/lib/chromium/chromium"
PACKAGE = Package(
    "chromium",
    title="Chromium",
    folder="chromium",
    finish=has(PROGRAM),
    sorry="Chromium is not on the PATH, and its packages could not be unpacked here ({why}).\n"
    "Install chromium; the tests look at the pages with a real browser.",
)
# Without Chromium's own sandbox, which root cannot use: it only sees pages of this project on this machine. The rest
# keeps it from calling the outside world by itself.
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
    """A Chromium: its program, the variables that its environment needs, and the flags to start it with."""

    program: str
    environment: dict[str, str]
    flags: tuple[str, ...] = FLAGS


def chromium() -> Browser:
    """The Chromium on the PATH, else the unpacked one (unpacked now if need be). Raises StartFailed."""
    for name in NAMES:
        if found := on_path(name):
            return Browser(found, {})
    root = PACKAGE.unpacked()
    return Browser(str(root / PROGRAM), _environment(root))


def _environment(root: Path) -> dict[str, str]:
    # Some libraries keep parts in a folder of their own, and know only the folder's installed name.
    private = {str(file.parent) for file in root.glob("usr/lib/*-linux-*/*/lib*.so*")}
    found = ":".join([libraries(root), *sorted(private)])
    return {"LD_LIBRARY_PATH": found, "FONTCONFIG_FILE": str(_fonts(root))}


def _fonts(root: Path) -> Path:
    """A fontconfig file that names the unpacked fonts and the system's; written with the root's present place."""
    file = root / "fonts.conf"
    folders = [root / "usr/share/fonts", Path("/usr/share/fonts")]
    lines = [f"  <dir>{escape(str(folder))}</dir>" for folder in folders]
    lines.append(f"  <cachedir>{escape(str(root / 'font-cache'))}</cachedir>")
    lines.append(FONT_RULES)
    text = "\n".join(['<?xml version="1.0"?>', "<fontconfig>", *lines, "</fontconfig>", ""])
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    return file
