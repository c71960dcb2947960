"""Another release's packages: which of the machine's sources are asked for them, and how its programs are started."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts import suite
from scripts.processes import StartFailed
from scripts.rabbitmq_dist import installation
from scripts.suite import Suite, bring_own_libc

STANZAS = """\
# a comment
Types: deb deb-src
URIs: http://mirror.invalid/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /a/key.gpg

Types: deb
URIs: http://mirror.invalid/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://elsewhere.invalid/
Suites: bookworm
Components: stable
"""
LINES = """\
deb [signed-by=/a/key.gpg] http://mirror.invalid/debian bookworm main contrib
deb-src http://mirror.invalid/debian bookworm main
deb http://elsewhere.invalid/ bookworm stable
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's own sources, on Debian 12."""
    folder = tmp_path / "apt"
    (folder / "sources.list.d").mkdir(parents=True)
    monkeypatch.setattr(suite, "APT", folder)
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"VERSION_CODENAME": "bookworm"})
    return folder


def written(tmp_path: Path) -> dict[str, str]:
    Suite("trixie", "lib").write_sources(tmp_path / "sources")
    return {file.suffix: file.read_text() for file in (tmp_path / "sources").iterdir()}


def test_only_the_distributions_main_source_is_renamed(apt: Path, tmp_path: Path) -> None:
    (apt / "sources.list.d" / "debian.sources").write_text(STANZAS)
    (apt / "sources.list").write_text(LINES)
    found = written(tmp_path)
    assert found[".list"] == "deb [signed-by=/a/key.gpg] http://mirror.invalid/debian trixie main\n"
    fields = [line for line in found[".sources"].splitlines() if not line.startswith("#")]
    assert fields == [
        "Types: deb deb-src",
        "URIs: http://mirror.invalid/debian",
        "Suites: trixie",
        "Components: main contrib",
        "Signed-By: /a/key.gpg",
    ]


def test_a_machine_of_another_kind_is_told_so(apt: Path, tmp_path: Path) -> None:
    (apt / "sources.list").write_text("deb http://elsewhere.invalid/ noble main\n")
    with pytest.raises(OSError, match="bookworm"):
        written(tmp_path)


@pytest.mark.integration
def test_a_program_is_started_by_the_loader_beside_it_under_its_own_name(tmp_path: Path) -> None:
    root = tmp_path / "root"
    library, programs = root / "usr/lib/some-linux-gnu", root / "usr/lib/erlang/bin"
    library.mkdir(parents=True)
    programs.mkdir(parents=True)
    loader = library / "ld-linux.so.2"
    loader.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    loader.chmod(0o755)
    (programs / "beam").write_bytes(suite.ELF + b"...")
    (programs / "script").write_text("#!/bin/sh\n")
    bring_own_libc(root, "usr/lib/erlang/**/bin/*")
    moved = root.rename(tmp_path / "moved")
    beam = moved / "usr/lib/erlang/bin/beam"
    told = subprocess.run([beam, "a b", "c"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [told[0], told[2], told[3], *told[5:]] == ["--library-path", "--argv0", str(beam), "a b", "c"]
    assert (Path(told[1]).resolve(), Path(told[4]).name) == (moved / "usr/lib/some-linux-gnu", "beam.real")
    assert (moved / "usr/lib/erlang/bin/script").read_text() == "#!/bin/sh\n"


def test_an_unknown_version_is_refused_with_those_that_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ", "5")
    with pytest.raises(StartFailed, match=r"4\.0 or 4,.* it is 5"):
        installation()
