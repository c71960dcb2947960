"""The whole sandbox, as an async context manager or as a process: each system on its own port, and the desk.

The desk is the control interface of all systems on one port. It also answers for a system that is down, for example
POST /{system}/_control/mode. The module writes the directory.toml that tells the broker the ports.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from sandbox.booking_system import BookingServer
from sandbox.control_api import control_routes
from sandbox.planner import PlannerServer
from sandbox.supplier import SupplierServer
from sandbox.system import STOP_S, System
from sandbox.system_layout import Layout, SupplierPlan, SystemPlan, default_layout, load_layout

TEST_CITIZEN = "0101364999"
"""The citizen of test reports to the sandbox's suppliers. Born in 2036, so no person has the number (ADR 7)."""

P = TypeVar("P", SystemPlan, SupplierPlan)


class Sandbox:
    """All systems of a layout: `async with Sandbox(layout)`, or `Sandbox.start(layout)` and `stop()`."""

    def __init__(self, layout: Layout | None = None) -> None:
        self.layout = layout or default_layout()
        self.planners = {name: PlannerServer(name, self.layout) for name in self.layout.planners}
        self.booking_systems = {
            name: BookingServer(name, self.layout) for name in self.layout.booking_systems
        }
        self.suppliers = {name: SupplierServer(name, self.layout) for name in self.layout.suppliers}
        self.systems: dict[str, System] = {**self.planners, **self.booking_systems, **self.suppliers}
        self._desk: web.AppRunner | None = None
        self.desk_url = ""

    @classmethod
    async def start(cls, layout: Layout | None = None) -> Sandbox:
        """Start everything. Raises OSError when a given port is taken."""
        return await cls(layout).__aenter__()

    async def stop(self) -> None:
        """Stop everything. Calls in flight are cut off."""
        await asyncio.gather(*(system.down() for system in self.systems.values()))
        if self._desk is not None:
            await self._desk.cleanup()

    async def __aenter__(self) -> Sandbox:
        try:
            for system in self.systems.values():
                await system.up()
            await self._open_desk()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def booking_system_of(self, jobcenter: str) -> BookingServer:
        """The booking system of this jobcenter."""
        return self.booking_systems[self.layout.jobcenters[jobcenter].booking_system]

    def planner_of(self, jobcenter: str) -> PlannerServer:
        """The Planner of this jobcenter."""
        return self.planners[self.layout.jobcenters[jobcenter].planner]

    def supplier_of(self, jobcenter: str) -> SupplierServer:
        """The supplier that gets the failure reports of this jobcenter."""
        return self.suppliers[self.layout.jobcenters[jobcenter].supplier]

    def breaches(self) -> list[str]:
        """Every breach of the contract, with the system's name."""
        return [f"{name}: {breach}" for name, system in self.systems.items() for breach in system.breaches]

    def disagreements(self) -> list[str]:
        """Every error in the books and inboxes, with the system's name."""
        return [f"{name}: {what}" for name, s in self.systems.items() for what in s.books()["disagreements"]]

    async def _open_desk(self) -> None:
        app = web.Application()
        app.add_routes([web.get("/", self._index), *control_routes(self._named, "/{system}")])
        self._desk = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
        await self._desk.setup()
        site = web.TCPSite(self._desk, self.layout.host, self.layout.desk_port)
        await site.start()
        self.desk_url = f"http://{self.layout.host}:{self._desk.addresses[0][1]}"

    def _named(self, request: web.Request) -> System:
        return self.systems[request.match_info["system"]]

    async def _index(self, _: web.Request) -> web.Response:
        systems = {name: self._description(name, system) for name, system in self.systems.items()}
        jobcenters = {code: dataclasses.asdict(plan) for code, plan in self.layout.jobcenters.items()}
        first_day = self.layout.starts_on.isoformat()
        return web.json_response({"first_day": first_day, "systems": systems, "jobcenters": jobcenters})

    def _description(self, name: str, system: System) -> dict[str, Any]:
        kind = (
            "planner" if name in self.planners else "supplier" if name in self.suppliers else "booking system"
        )
        description = {"base_url": system.base_url, "up": system.is_up, "kind": kind, "serves": system.served}
        return description | ({"format": system.format} if isinstance(system, SupplierServer) else {})

    def directory_toml(self, host: str | None = None) -> str:
        """The directory.toml for the broker. `host` is the name by which the broker reaches the sandbox.

        It names files with the secrets of webhooks; `write_directory` writes them.
        """
        lines = ["# Written by the sandbox; its ports change with every start."]
        for table, systems in (("planners", self.planners), ("booking_systems", self.booking_systems)):
            for name, system in systems.items():
                url = f"http://{host or system.host}:{system.port}"
                plan: SystemPlan = getattr(self.layout, table)[name]
                lines += _table(f"{table}.{name}", {"base_url": url, "allow_http": True, **plan.limits})
        for name, supplier in self.suppliers.items():
            lines += _table(f"suppliers.{name}", self._supplier_table(name, supplier, host))
        for code, jobcenter in self.layout.jobcenters.items():
            lines += _table(f'jobcenters."{code}"', dataclasses.asdict(jobcenter))
        return "\n".join(lines) + "\n"

    def _supplier_table(self, name: str, supplier: SupplierServer, host: str | None) -> dict[str, Any]:
        plan = self.layout.supplier_plans[name]
        url = f"http://{host or supplier.host}:{supplier.port}{supplier.path}"
        table = {"name": plan.name, "format": plan.format, "base_url": url, "allow_http": True}
        table["test_cpr"] = TEST_CITIZEN
        files = {"webhook_secret_files": _secret_files(supplier)} if supplier.secrets else {}
        return table | files | plan.limits

    def write_directory(self, path: Path, host: str | None = None) -> None:
        """Write directory.toml to `path` and the webhook secrets beside it, readable by their owner only."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for supplier in self.suppliers.values():
            for file, secret in zip(_secret_files(supplier), supplier.secrets, strict=True):
                _write(path.parent / file, secret + "\n")
        _write(path, self.directory_toml(host))


def _secret_files(supplier: SupplierServer) -> list[str]:
    return [f"{supplier.name}.webhook-secret-{n + 1}" for n in range(len(supplier.secrets))]


def _table(name: str, values: dict[str, Any]) -> list[str]:
    return ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {_toml(each)}' for key, each in value.items()) + "}"
    return str(value) if isinstance(value, int | float) else f'"{value}"'


def _with_ports(layout: Layout, host: str, desk_port: int, base_port: int | None) -> Layout:
    """The layout on `host`. Ports from `base_port`: the desk, then Planners, booking systems and suppliers."""
    layout = dataclasses.replace(layout, host=host, desk_port=desk_port)
    if base_port is None:
        return layout
    ports = iter(range(base_port + 1, base_port + 1000))
    return dataclasses.replace(
        layout,
        desk_port=base_port,
        planners=_numbered(layout.planners, ports),
        booking_systems=_numbered(layout.booking_systems, ports),
        suppliers=_numbered(layout.supplier_plans, ports),
    )


def _numbered(plans: dict[str, P], ports: Iterator[int]) -> dict[str, P]:
    return {name: dataclasses.replace(plan, port=next(ports)) for name, plan in plans.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox.servers", description=__doc__)
    parser.add_argument("--layout", type=Path, help="a TOML file; without it the built-in layout")
    parser.add_argument("--directory-out", type=Path, help="where to write the directory.toml for the broker")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument(
        "--public-host", help="the name by which the broker reaches this machine (in directory.toml)"
    )
    parser.add_argument(
        "--desk-port", type=int, default=0, help="the port of the desk; the systems get free ports"
    )
    parser.add_argument(
        "--base-port", type=int, help="the port of the desk; the systems get the following ports"
    )
    return parser.parse_args()


async def serve(options: argparse.Namespace) -> None:
    """Run until SIGINT or SIGTERM. When all is up, print the address of the desk, the only line of output."""
    layout = load_layout(options.layout) if options.layout else default_layout()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Sandbox(_with_ports(layout, options.host, options.desk_port, options.base_port)) as sandbox:
        if options.directory_out:
            sandbox.write_directory(options.directory_out, options.public_host)
        print(sandbox.desk_url, flush=True)
        await stop.wait()


def _write(path: Path, text: str) -> None:
    """Write atomically, because a broker may read the file. Readable by its owner only."""
    new = path.with_name(path.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def main() -> int:
    """Run the process. Returns its exit code."""
    asyncio.run(serve(_arguments()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
