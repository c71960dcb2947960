"""`make run` as a person has it: the whole day through the real broker, and nothing left after Ctrl-C."""

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

COMMAND = [sys.executable, "-m", "sandbox.play"]


@pytest.fixture
def alone() -> Iterator[None]:
    """No other test runs the day meanwhile."""
    with the_only_day():
        yield


def left() -> list[str]:
    """The command lines of processes that serve a `make run` of this checkout."""
    ours = (str(services.FOLDER), str(services.FOLDER.parent / "play-ledger"))
    told = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    return [line for line in told if any(folder in line for folder in ours)]


@pytest.mark.usefixtures("alone")
@pytest.mark.timeout(400)
def test_every_request_of_the_day_meets_its_end_and_nothing_stays_behind() -> None:
    """DESIGN 11: exit 0 only if every request reached exactly the end that the sample expects."""
    done = subprocess.run([*COMMAND, "--once"], capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "439 of 439 requests and 112 of 112 failure reports met exactly their expected end" in done.stdout
    assert "the books agree." in done.stdout
    assert left() == []


@pytest.mark.usefixtures("alone")
@pytest.mark.timeout(200)
def test_ctrl_c_in_the_middle_leaves_nothing_behind() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        seen: list[str] = []
        while not any("have ended" in line for line in seen):
            seen.append(process.stdout.readline())
            assert seen[-1], "".join(seen)  # it ended
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert left() == []


@pytest.mark.usefixtures("alone")
@pytest.mark.timeout(400)
def test_after_the_day_there_are_pages_to_open() -> None:
    """The Jobnet page, its switches, and a link that logs in at the console."""
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        seen: list[str] = []
        while not any("logs in once" in line for line in seen):
            seen.append(process.stdout.readline())
            assert seen[-1], "".join(seen)  # it ended
        addresses = re.findall(r"^  (Jobnet|switches|console) +(\S+)", "".join(seen), re.MULTILINE)
        titles = {name: _title(address) for name, address in addresses}
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert {name: title.partition(" ")[0] for name, title in titles.items()} == {
        "Jobnet": "Vælg",
        "switches": "Switches",
        "console": "One-time",
    }
    assert left() == []


def _title(address: str) -> str:
    with urlopen(address, timeout=30) as answer:  # noqa: S310 - an address of ours
        found = re.search(r"<title>(.*?)</title>", answer.read().decode())
    assert found
    return found[1]


def test_one_that_is_not_met_is_told_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = (Line(f"00{n}-book", "booking.book.v1", {}, {"status": "done"}) for n in (1, 2))
    assert play._shown([LineResult(good, "done")], [ReportResult(good, "bro", "delivered")], []) is True
    assert (
        play._shown(
            [LineResult(good, "done"), LineResult(bad, "failed", ["status is failed, not done"])], [], []
        )
        is False
    )
    assert "NOT MET 002-book (booking.book.v1): status is failed, not done" in capsys.readouterr().out
    assert play._shown([LineResult(good, "done")], [], ["birk: booked twice"]) is False
    assert "BOOKS birk: booked twice" in capsys.readouterr().out
    assert play._shown([], [ReportResult(bad, "bro", "dead", "exhausted", ["report is dead"])], []) is False
    told = capsys.readouterr().out
    assert "NOT MET 002-book (booking.book.v1): report is dead" in told
    assert "exhausted" in told


def test_keys_are_made_once_and_for_us_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "LOCAL", tmp_path / "local")
    file = services.development_keys()
    before = file.read_bytes()
    assert services.development_keys().read_bytes() == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert set(json.loads(before)) == {"sealing", "seal_with", "tokens", "token_order"}
