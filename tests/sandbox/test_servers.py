"""The sandbox as a whole and as a process: its ports, the broker's directory, its stop."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from datetime import date
from pathlib import Path

import aiohttp
import pytest

from config.directory import load_directory
from sandbox.servers import Sandbox
from sandbox.system_layout import default_layout, load_layout
from tests.sandbox.conftest import ANNA

LAYOUT = """
first_day = 2030-01-07
reservation_seconds = 5
[planners.p]
[booking_systems.b]
limits = {total_timeout_seconds = 3}
[suppliers.s]
name = "S"
format = "webhook"
limits = {status_means = {422 = "retry"}}
[jobcenters.12345]
name = "J"
planner = "p"
booking_system = "b"
supplier = "s"
"""


def test_the_size_of_the_default_layout() -> None:
    layout = default_layout()
    sizes = [
        len(part) for part in (layout.planners, layout.booking_systems, layout.jobcenters, layout.suppliers)
    ]
    assert sizes == [2, 6, 14, 4]
    assert {s for s in layout.booking_systems if not layout.served_by(s)} == set()


async def test_the_directory_names_the_real_ports(sandbox: Sandbox, tmp_path: Path) -> None:
    file = tmp_path / "directory.toml"
    sandbox.write_directory(file)
    directory = load_directory(file)
    addresses = {name: system.base_url for name, system in directory.booking_systems.items()}
    assert addresses == {name: system.base_url for name, system in sandbox.booking_systems.items()}
    for name, supplier in sandbox.suppliers.items():
        assert directory.suppliers[name].base_url == supplier.base_url + supplier.path
        assert list(directory.suppliers[name].webhook_secrets()) == supplier.secrets
    assert [s.format for s in directory.suppliers.values()].count("webhook") == 1
    assert directory.suppliers["fyrtaarn"].report_codes == (2, 3, 4)
    assert stat.S_IMODE((tmp_path / "moelle.webhook-secret-1").stat().st_mode) == 0o600
    assert set(directory.jobcenters) == set(sandbox.layout.jobcenters)
    assert directory.booking_systems["roen"].breaker_failures == 1000
    assert "http://elsewhere:" in sandbox.directory_toml("elsewhere")


@pytest.mark.integration
async def test_a_layout_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "layout.toml"
    file.write_text(LAYOUT)
    async with Sandbox(load_layout(file)) as sandbox:
        assert sandbox.layout.starts_on == date(2030, 1, 7)
        assert sandbox.booking_system_of("12345").name == "b"
        assert sandbox.planner_of("12345").name == "p"
        assert "total_timeout_seconds = 3" in sandbox.directory_toml()
        assert 'status_means = {"422" = "retry"}' in sandbox.directory_toml()
        assert sandbox.supplier_of("12345").format == "webhook"
        assert (sandbox.breaches(), sandbox.disagreements()) == ([], [])


async def test_a_taken_port_leaves_nothing_open(sandbox: Sandbox, tmp_path: Path) -> None:
    layout = load_layout(_with_port(tmp_path, sandbox.booking_systems["birk"].port))
    with pytest.raises(OSError, match="in use"):
        await Sandbox.start(layout)
    with pytest.raises(OSError, match="in use"):
        async with Sandbox(layout):
            pass


def _with_port(folder: Path, port: int) -> Path:
    file = folder / "layout.toml"
    file.write_text(LAYOUT.replace("[booking_systems.b]", f"[booking_systems.b]\nport = {port}"))
    return file


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_prints_the_address_of_its_desk_and_stops_on_a_signal(
    tmp_path: Path, http: aiohttp.ClientSession, ending: signal.Signals
) -> None:
    command = [sys.executable, "-m", "sandbox.servers", "--directory-out", str(tmp_path / "new" / "d.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220 - it starts quickly
        assert process.stdout is not None
        desk = process.stdout.readline().strip()
        async with http.get(desk) as answer:
            systems = (await answer.json())["systems"]
        directory = load_directory(tmp_path / "new" / "d.toml")
        assert systems["birk"]["base_url"] == directory.booking_systems["birk"].base_url
        async with http.post(f"{desk}/nobody/_control/reset") as answer:
            assert answer.status == 400
        process.send_signal(ending)
        assert process.wait(20) == 0
    assert ANNA not in str(systems)
