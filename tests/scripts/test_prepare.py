"""What is missing on a machine is named in one sentence before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import playwright_driver, prepare
from scripts.debian import Package
from scripts.prepare import Part, check, parts
from scripts.processes import StartFailed
from scripts.shared_libraries import missing

pytestmark = pytest.mark.integration

# What ldd prints for several files: one that misses two libraries, a script, one with a C library that is too old.
LDD = """\
#!/bin/sh
cat <<END
/opt/node:
	linux-vdso.so.1 (0x00007f0f68841000)
	libatomic.so.1 => not found
	libdl.so.2 => /lib/x86_64-linux-gnu/libdl.so.2 (0x00007f0f68821000)
	libodd.so.2 => not found
/opt/script:
	not a dynamic executable
/opt/new:
/opt/new: /lib/x86_64-linux-gnu/libc.so.6: version \\`GLIBC_2.99' not found (required by /opt/new)
	libatomic.so.1 => not found
END
"""
# `ldd` is a process, also where a script stands for it.
pytestmark = pytest.mark.integration
NODE, SCRIPT, NEW = Path("/opt/node"), Path("/opt/script"), Path("/opt/new")


@pytest.fixture
def ldd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ldd"
    program.write_text(LDD)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@pytest.mark.usefixtures("ldd")
def test_missing_libraries_and_the_program_that_needs_them_are_found() -> None:
    assert missing([NODE, SCRIPT, NEW]) == {"libatomic.so.1": NODE, "libodd.so.2": NODE, "GLIBC_2.99": NEW}


@pytest.mark.usefixtures("ldd")
def test_all_missing_libraries_are_named_in_one_sentence() -> None:
    with pytest.raises(StartFailed) as raised:
        check([Part("Playwright", [NODE]), Part("nothing", [])])
    assert str(raised.value) == (
        "This machine lacks shared libraries: libatomic.so.1 (Playwright: node), libodd.so.2 (Playwright: node),"
        " GLIBC_2.99 (Playwright: new); install the packages that hold them."
    )


def test_a_machine_without_ldd_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing([NODE]) == {}


def test_the_programs_of_make_run_find_their_libraries_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQP_URL", "amqp://there.invalid/")
    found = list(parts("run"))
    check(found)
    assert [part.name for part in found] == ["a Python package", "PostgreSQL"]
    assert all(part.files for part in found)


@pytest.mark.usefixtures("ldd")
def test_the_drivers_library_is_unpacked_when_the_machine_lacks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "root/usr/lib/some-linux-gnu"
    folder.mkdir(parents=True)
    monkeypatch.setattr(Package, "unpacked", lambda _: tmp_path / "root")
    assert playwright_driver.environment() == {"LD_LIBRARY_PATH": str(folder)}


def test_what_cannot_be_unpacked_ends_the_command_with_its_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Part:
        raise StartFailed("nginx is not on the PATH")

    monkeypatch.setattr(prepare, "TEST", (fail,))
    monkeypatch.setattr("sys.argv", ["prepare", "test"])
    assert prepare.main() == 1
    assert capsys.readouterr().err == "  nginx is not on the PATH\n"
