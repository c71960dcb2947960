"""Periodic checks that are too expensive for each scrape; they store their results in the vitals."""

from __future__ import annotations

import asyncio

from broker.clients import Systems
from broker.clients.certificates import certificate_ends, certificates_shown
from broker.health.vitals import Vitals
from broker.ledger.operators.operations import Operations
from broker.ledger.upkeep.conservation import Conservation, report_codes
from broker.rabbitmq import Rabbit
from broker.rabbitmq.topology import WORK_QUEUES, lane_of
from broker.scheduler import Chore
from config.settings import Settings

CONSERVATION_EVERY_S = 60.0
"""How often each process compares accepted requests and reports with their outcomes."""
CERTIFICATES_EVERY_S = 3600.0


class PeriodicChecks:
    """The periodic checks of one process."""

    def __init__(
        self, settings: Settings, vitals: Vitals, operations: Operations, rabbit: Rabbit, systems: Systems
    ) -> None:
        self._settings = settings
        self._vitals = vitals
        self._operations = operations
        self._rabbit = rabbit
        self._systems = systems

    def chores(self) -> list[Chore]:
        """The chores for the scheduler. Without a health server the figures are not exported, so they are not read."""
        always = [Chore(self.conserve, CONSERVATION_EVERY_S)]
        health = self._settings.health
        if not health.port:
            return always
        return [
            *always,
            Chore(self.figures, health.figures_every_seconds),
            Chore(self.certificates, CERTIFICATES_EVERY_S),
        ]

    async def conserve(self) -> None:
        """Compare what was accepted with its outcomes. Raises LedgerAway."""
        codes = report_codes(self._systems.directory.suppliers)
        self._vitals.record_balance(
            await Conservation(self._settings, self._operations.server, codes).check()
        )

    async def figures(self) -> None:
        """Read the figures of the ledger and the depths of the work queues. Raises LedgerAway, RabbitAway."""
        queues = (*WORK_QUEUES, *map(lane_of, self._systems.directory.suppliers))
        self._vitals.record_figures(
            await self._operations.figures.figures(), await self._rabbit.depths(queues)
        )

    async def certificates(self) -> None:
        """Read when certificates end. For a system that cannot be reached the last known date stays."""
        directory = self._systems.directory
        names = {*directory.planners, *directory.booking_systems, *directory.suppliers}
        before = self._vitals.certificates.items()
        last = {(name, which): ends for (name, which), ends in before if which == "server" and name in names}
        own = await asyncio.to_thread(certificate_ends, directory)
        self._vitals.certificates = last | own
        self._vitals.certificates = last | own | await certificates_shown(directory)
