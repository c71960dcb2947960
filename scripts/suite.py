"""Another release ("suite") of the machine's distribution; its packages are unpacked and no system file is changed.

Its programs may need a newer libc than the system's. So the loader of the unpacked libc starts them: each program is
replaced by a small script of the same name.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

APT = Path("/etc/apt")
ELF = b"\x7fELF"
# All paths are relative to the script, so the folder may be moved.
WRAPPER = """\
#!/bin/sh
here="$(dirname "$(readlink -f "$0")")"
root="$here/{root}"
exec "$root/{loader}" --library-path "{libraries}" --argv0 "$0" "$here/{program}" "$@"
"""


@dataclass(frozen=True)
class Suite:
    """A suite's name, and a pattern of the packages to unpack, out of all that a bare system would get."""

    name: str
    wanted: str

    def write_sources(self, folder: Path) -> None:
        """Write the machine's sources into `folder`, with this suite's name instead of the installed one's.

        Raises OSError when there are none.
        """
        own = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
        folder.mkdir()
        found = 0
        for file in [
            APT / "sources.list",
            *APT.glob("sources.list.d/*.list"),
            *APT.glob("sources.list.d/*.sources"),
        ]:
            if own and file.is_file() and (text := self._renamed(file, own)):
                (folder / f"{found}{file.suffix}").write_text(text)
                found += 1
        if not found:
            raise OSError(f"no source of the machine's own distribution names its suite ({own or 'unknown'})")

    def _renamed(self, file: Path, own: str) -> str:
        """The entries of one file for the distribution's main suite, renamed."""
        text = file.read_text()
        if file.suffix == ".list":
            line = re.compile(rf"^(deb\s.*\s){own}(\s+main)\b.*$", re.MULTILINE)
            return "".join(f"{found[1]}{self.name}{found[2]}\n" for found in line.finditer(text))
        stanzas = [stanza for stanza in re.split(r"\n\s*\n", text) if _is_main(stanza, own)]
        return "\n\n".join(_field("Suites").sub(f"Suites: {self.name}", stanza) for stanza in stanzas)


def bring_own_libc(root: Path, programs: str) -> None:
    """Let the programs in `root` that match the glob pattern run with the libc in `root`. Raises OSError without one."""
    libraries = sorted({loader.parent for loader in root.glob("usr/lib/*-linux-*/ld-*.so*")})
    if not libraries:
        raise OSError("no libc was unpacked")
    loader = next(libraries[0].glob("ld-*.so*"))
    for program in [file for file in root.glob(programs) if _is_program(file)]:
        moved = program.rename(program.with_name(f"{program.name}.real"))
        up = os.path.relpath(root, program.parent)
        program.write_text(
            WRAPPER.format(
                root=up,
                loader=loader.relative_to(root),
                libraries=f"$root/{libraries[0].relative_to(root)}",
                program=moved.name,
            )
        )
        program.chmod(0o755)


def _field(name: str) -> re.Pattern[str]:
    return re.compile(rf"^{name}:(.*)$", re.MULTILINE | re.IGNORECASE)


def _is_main(stanza: str, own: str) -> bool:
    """Whether the stanza names binary packages of the distribution's main suite."""
    wanted = {"Types": "deb", "Suites": own, "Components": "main"}
    return all(
        (found := _field(name).search(stanza)) is not None and word in found[1].split()
        for name, word in wanted.items()
    )


def _is_program(file: Path) -> bool:
    with file.open("rb") as opened:
        return not file.is_symlink() and opened.read(len(ELF)) == ELF
