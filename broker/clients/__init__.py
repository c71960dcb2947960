"""The clients of all external systems of a directory, and their exchange when the directory is reloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from broker.clients.booking import BookingSystem
from broker.clients.http import HttpSystem
from broker.clients.planner import Planner
from broker.errors import Misconfigured, Seen
from config.directory import Directory, SystemConfig
from config.settings import Settings

__all__ = ["BookingSystem", "Clients", "Planner", "Systems"]


@dataclass(frozen=True, slots=True)
class Clients:
    """What a handler may call, for one jobcenter."""

    planner: Planner
    booking: BookingSystem


class Systems:
    """One `HttpSystem` for each Planner and booking system.

    A name may be used once in each of the two tables.
    """

    def __init__(self, settings: Settings, directory: Directory) -> None:
        self._settings = settings
        self._directory = directory
        self._planners: dict[str, HttpSystem] = {}
        self._bookings: dict[str, HttpSystem] = {}
        self._retired: list[HttpSystem] = []

    @property
    def directory(self) -> Directory:
        """The directory in force."""
        return self._directory

    async def __aenter__(self) -> Self:
        await self.replace(self._directory)
        return self

    async def __aexit__(self, *_: object) -> None:
        for system in (*self._planners.values(), *self._bookings.values(), *self._retired):
            await system.close()

    def clients(self, planner_name: str, booking_name: str) -> Clients:
        """The clients of these two systems.

        Raises Misconfigured if the directory no longer has one of them.
        """
        return Clients(
            Planner(_named(self._planners, planner_name)), BookingSystem(_named(self._bookings, booking_name))
        )

    async def replace(self, directory: Directory) -> None:
        """Takes a reloaded directory: unchanged systems stay as they are, gone ones close when they are idle.

        Clients handed out before keep working, whatever became of their system. Raises ValueError, and
        changes nothing, if a system cannot be built.
        """
        planners = await self._next(self._planners, directory.planners)
        bookings = await self._next(self._bookings, directory.booking_systems)
        before = (*self._planners.values(), *self._bookings.values())
        self._planners, self._bookings, self._directory = planners, bookings, directory
        staying = {id(system) for system in (*planners.values(), *bookings.values())}
        for system in before:
            if id(system) not in staying:
                await system.retire()
                self._retired.append(system)
        self._retired = [system for system in self._retired if not system.closed]

    async def _next(
        self, now: dict[str, HttpSystem], configs: dict[str, SystemConfig]
    ) -> dict[str, HttpSystem]:
        return {
            name: now[name]
            if name in now and now[name].config == config
            else await HttpSystem(name, config, config.limits(self._settings)).__aenter__()
            for name, config in configs.items()
        }


def _named(systems: dict[str, HttpSystem], name: str) -> HttpSystem:
    try:
        return systems[name]
    except KeyError:
        raise Misconfigured(Seen(name, "directory", "unknown-system")) from None
