"""`make run` as a user runs it: the whole day through the real broker, and no process processes_left after Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from sandbox import play, services
from sandbox.day_sender import LineResult
from sandbox.report_check import ReportResult
from sandbox.samples import Line
from tests.support import the_only_day

pytestmark = pytest.mark.integration

COMMAND = [sys.executable, "-m", "sandbox.play"]


@pytest.fixture
def alone() -> Iterator[None]:
    """Keep other tests from running the sample day at the same time."""
    with the_only_day():
        yield


def processes_left() -> list[str]:
    """The command lines of processes that serve a `make run` of this checkout."""
    folders = (str(services.FOLDER), str(services.FOLDER.parent / "play-ledger"))
    lines = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    return [line for line in lines if any(folder in line for folder in folders)]


@pytest.mark.usefixtures("alone")
@pytest.mark.timeout(400)
def test_every_request_of_the_day_ends_as_expected_and_no_process_is_left() -> None:
    """Exit 0 only if every request and report ended as the sample expects."""
    done = subprocess.run([*COMMAND, "--once"], capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "439 of 439 requests and 112 of 112 failure reports ended as expected" in done.stdout
    assert "the books agree." in done.stdout
    assert processes_left() == []


@pytest.mark.usefixtures("alone")
@pytest.mark.timeout(200)
def test_ctrl_c_in_the_middle_leaves_no_process_behind() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        output: list[str] = []
        while not any("have ended" in line for line in output):
            output.append(process.stdout.readline())
            assert output[-1], "".join(output)  # the process has ended
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert processes_left() == []


@pytest.mark.usefixtures("alone")
@pytest.mark.timeout(400)
def test_after_the_day_there_are_pages_to_open() -> None:
    """The Jobnet page, its switches, and a link that logs in at the console."""
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        output: list[str] = []
        while not any("logs in once" in line for line in output):
            output.append(process.stdout.readline())
            assert output[-1], "".join(output)  # the process has ended
        addresses = re.findall(r"^  (Jobnet|switches|console) +(\S+)", "".join(output), re.MULTILINE)
        titles = {name: _title(address) for name, address in addresses}
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert {name: title.partition(" ")[0] for name, title in titles.items()} == {
        "Jobnet": "Vælg",
        "switches": "Switches",
        "console": "One-time",
    }
    assert processes_left() == []


def _title(address: str) -> str:
    with urlopen(address, timeout=30) as answer:  # noqa: S310 - a local address
        found = re.search(r"<title>(.*?)</title>", answer.read().decode())
    assert found
    return found[1]


def test_a_result_that_is_not_as_expected_is_printed_with_its_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    good, bad = (Line(f"00{n}-book", "booking.book.v1", {}, {"status": "done"}) for n in (1, 2))
    assert (
        play.print_results([LineResult(good, "done")], [ReportResult(good, "bro", "delivered")], []) is True
    )
    assert (
        play.print_results(
            [LineResult(good, "done"), LineResult(bad, "failed", ["status is failed, not done"])], [], []
        )
        is False
    )
    assert "NOT AS EXPECTED 002-book (booking.book.v1): status is failed, not done" in capsys.readouterr().out
    assert play.print_results([LineResult(good, "done")], [], ["birk: booked twice"]) is False
    assert "BOOKS birk: booked twice" in capsys.readouterr().out
    assert (
        play.print_results([], [ReportResult(bad, "bro", "dead", "exhausted", ["report is dead"])], [])
        is False
    )
    lines = capsys.readouterr().out
    assert "NOT AS EXPECTED 002-book (booking.book.v1): report is dead" in lines
    assert "exhausted" in lines


def test_keys_are_made_once_and_readable_by_their_owner_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "LOCAL", tmp_path / "local")
    file = services.development_keys()
    before = file.read_bytes()
    assert services.development_keys().read_bytes() == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(json.loads(before)) == {"sealing", "seal_with", "tokens", "token_order"}
