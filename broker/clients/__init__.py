"""The clients of all external systems in the directory, replaced when the directory is reloaded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from broker.clients.booking import BookingSystem
from broker.clients.http import HttpSystem
from broker.clients.planner import Planner
from broker.clients.supplier import Supplier, SupplierReceipt
from broker.errors import CallFacts, Misconfigured
from config.directory import Directory, differences, file_contents
from config.settings import Settings
from config.systems import SystemConfig

__all__ = ["BookingSystem", "Clients", "Planner", "Supplier", "SupplierReceipt", "Systems"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients that a handler may call, for one jobcenter."""

    planner: Planner
    booking: BookingSystem


class Systems:
    """One `HttpSystem` for each Planner, booking system and supplier with an address.

    The three have separate names: a Planner and a booking system may have the same one.
    """

    def __init__(self, settings: Settings, directory: Directory) -> None:
        self._settings = settings
        self._directory = directory
        self._planners: dict[str, HttpSystem] = {}
        self._bookings: dict[str, HttpSystem] = {}
        self._suppliers: dict[str, HttpSystem] = {}
        self._retired: list[HttpSystem] = []
        self._contents: dict[str, str] = {}

    @property
    def directory(self) -> Directory:
        """The current directory."""
        return self._directory

    async def __aenter__(self) -> Self:
        await self.replace(self._directory)
        return self

    async def __aexit__(self, *_: object) -> None:
        for system in (*self._live(), *self._retired):
            await system.close()

    def clients(self, planner_name: str, booking_name: str) -> Clients:
        """The clients of these two systems. Raises Misconfigured if the directory no longer has one of them."""
        return Clients(
            Planner(_named(self._planners, planner_name)), BookingSystem(_named(self._bookings, booking_name))
        )

    def supplier(self, name: str) -> Supplier:
        """The client of this supplier. Raises Misconfigured if the directory no longer has it.

        Without an address in the directory every delivery raises Misconfigured.
        """
        return Supplier(name, _named(self._directory.suppliers, name), self._suppliers.get(name))

    async def replace(self, directory: Directory) -> list[str]:
        """Use a reloaded directory; returns one line for each change, of a key or of the contents of a file.

        Unchanged systems are kept; removed ones close when no call is in flight. Clients returned earlier keep working,
        also those of removed systems. Raises ValueError or SetupProblem, and changes nothing, if a system cannot be
        built in place of one that works.
        """
        contents = await asyncio.to_thread(file_contents, directory)
        planners = await self._built(self._planners, directory.planners)
        bookings = await self._built(self._bookings, directory.booking_systems)
        with_address = {name: config for name, config in directory.suppliers.items() if config.has_address}
        suppliers = await self._built(self._suppliers, with_address)
        changes = differences(self._directory, directory) + [
            f"{key}: other contents"
            for key, content in contents.items()
            if key in self._contents and self._contents[key] != content
        ]
        self._contents = contents
        old = self._live()
        self._planners, self._bookings, self._suppliers = planners, bookings, suppliers
        self._directory = directory
        kept = {id(system) for system in self._live()}
        for system in old:
            if id(system) not in kept:
                await system.retire()
                self._retired.append(system)
        self._retired = [system for system in self._retired if not system.closed]
        return changes

    def _live(self) -> tuple[HttpSystem, ...]:
        return (*self._planners.values(), *self._bookings.values(), *self._suppliers.values())

    async def _built(
        self, current: dict[str, HttpSystem], configs: Mapping[str, SystemConfig]
    ) -> dict[str, HttpSystem]:
        built = {}
        for name, config in configs.items():
            before = current.get(name)
            if before is not None and await before.is_built_from(config):
                built[name] = before
                continue
            built[name] = await HttpSystem(name, config, config.limits(self._settings)).__aenter__()
            if (problem := built[name].setup_problem) and before is not None and before.setup_problem is None:
                raise problem
        return built


def _named(systems: Mapping[str, T], name: str) -> T:
    try:
        return systems[name]
    except KeyError:
        raise Misconfigured(CallFacts(name, "directory", "unknown-system", sent=False)) from None
