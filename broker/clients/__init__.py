"""The clients of all external systems of a directory, and their exchange when the directory is reloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from broker.clients.booking import BookingSystem
from broker.clients.http import HttpSystem
from broker.clients.planner import Planner
from broker.clients.supplier import Supplier, SupplierReceipt
from broker.errors import CallFacts, Misconfigured
from config.directory import Directory
from config.settings import Settings
from config.systems import SystemConfig

__all__ = ["BookingSystem", "Clients", "Planner", "Supplier", "SupplierReceipt", "Systems"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Clients:
    """What a handler may call, for one jobcenter."""

    planner: Planner
    booking: BookingSystem


class Systems:
    """One `HttpSystem` for each Planner, booking system and supplier that has an address.

    A name may be used once in each of the three tables.
    """

    def __init__(self, settings: Settings, directory: Directory) -> None:
        self._settings = settings
        self._directory = directory
        self._planners: dict[str, HttpSystem] = {}
        self._bookings: dict[str, HttpSystem] = {}
        self._suppliers: dict[str, HttpSystem] = {}
        self._retired: list[HttpSystem] = []

    @property
    def directory(self) -> Directory:
        """The directory in force."""
        return self._directory

    async def __aenter__(self) -> Self:
        await self.replace(self._directory)
        return self

    async def __aexit__(self, *_: object) -> None:
        for system in (*self._live(), *self._retired):
            await system.close()

    def clients(self, planner_name: str, booking_name: str) -> Clients:
        """The clients of these two systems.

        Raises Misconfigured if the directory no longer has one of them.
        """
        return Clients(
            Planner(_named(self._planners, planner_name)), BookingSystem(_named(self._bookings, booking_name))
        )

    def supplier(self, name: str) -> Supplier:
        """The client of this supplier; without an address in the directory every delivery is Misconfigured.

        Raises Misconfigured if the directory no longer has it.
        """
        return Supplier(name, _named(self._directory.suppliers, name), self._suppliers.get(name))

    async def replace(self, directory: Directory) -> None:
        """Takes a reloaded directory: unchanged systems stay as they are, gone ones close when they are idle.

        Clients handed out before keep working, whatever became of their system. Raises ValueError, and
        changes nothing, if a system cannot be built.
        """
        planners = await self._next(self._planners, directory.planners)
        bookings = await self._next(self._bookings, directory.booking_systems)
        addressed = {name: config for name, config in directory.suppliers.items() if config.has_address}
        suppliers = await self._next(self._suppliers, addressed)
        before = self._live()
        self._planners, self._bookings, self._suppliers = planners, bookings, suppliers
        self._directory = directory
        staying = {id(system) for system in self._live()}
        for system in before:
            if id(system) not in staying:
                await system.retire()
                self._retired.append(system)
        self._retired = [system for system in self._retired if not system.closed]

    def _live(self) -> tuple[HttpSystem, ...]:
        return (*self._planners.values(), *self._bookings.values(), *self._suppliers.values())

    async def _next(
        self, now: dict[str, HttpSystem], configs: Mapping[str, SystemConfig]
    ) -> dict[str, HttpSystem]:
        return {
            name: now[name]
            if name in now and now[name].config == config
            else await HttpSystem(name, config, config.limits(self._settings)).__aenter__()
            for name, config in configs.items()
        }


def _named(systems: Mapping[str, T], name: str) -> T:
    try:
        return systems[name]
    except KeyError:
        raise Misconfigured(CallFacts(name, "directory", "unknown-system", sent=False)) from None
