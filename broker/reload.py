"""SIGHUP: read the directory and its files again and replace it as a whole, or keep the old one and log why.

One reload at a time. SIGHUPs during a reload cause exactly one more after it, so the newest file is the one in force.
See docs/contract.md#directory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.clients import Systems
from broker.clients.certificates import setup_problems
from broker.clients.tls import SetupProblem
from broker.ledger.requests.request_lookups import Lookups
from broker.rabbitmq.declare import missing
from broker.telemetry.log import get_logger
from config.checks import problems
from config.directory import Directory, changed_systems, load_directory
from config.settings import Settings
from config.sources import ConfigProblem

log = get_logger("reload")

RELOAD_S = 60.0
"""Longest duration of the checks of one reload: a server that does not answer must not hold up the next one."""


class Reloads:
    """Reloads one after the other, each time that an event is set, which SIGHUP does."""

    def __init__(
        self, settings: Settings, systems: Systems, lookups: Lookups, in_force: Callable[[Directory], None]
    ) -> None:
        """`in_force` is called with each new directory."""
        self._settings = settings
        self._systems = systems
        self._lookups = lookups
        self._in_force = in_force

    async def run(self, wanted: asyncio.Event) -> None:
        """Reload each time that `wanted` is set, without end."""
        while True:
            await wanted.wait()
            # Before the file is read: a later SIGHUP may mean a later file.
            wanted.clear()
            try:
                await self._reload()
            except Exception:
                log.exception("reload-failed")

    async def _reload(self) -> None:
        try:
            async with asyncio.timeout(RELOAD_S):
                fresh = await self._checked()
        except ConfigProblem as problem:
            for refusal in problem.problems:
                log.error("reload-refused", reason=refusal)
            return
        except TimeoutError:
            log.error("reload-refused", reason=f"its checks did not end within {RELOAD_S:.0f} s")
            return
        try:
            changes = await self._systems.replace(fresh)
        except SetupProblem as problem:
            # A file changed after it was checked.
            log.error("reload-refused", reason=f"a file of a system cannot be used: {problem.what}")
            return
        self._in_force(fresh)
        for change in changes:
            log.info("reload-change", reason=change)
        log.info("reloaded", count=len(fresh.jobcenters))

    async def _checked(self) -> Directory:
        """The directory as it is now. Raises ConfigProblem if it may not be used."""
        fresh = await asyncio.to_thread(load_directory, self._settings.directory.file)
        refusals = problems(self._settings, fresh) + await asyncio.to_thread(setup_problems, fresh)
        refusals = refusals or await self._still_in_use(fresh)
        refusals = refusals or await missing(self._settings, fresh.suppliers)
        if refusals:
            raise ConfigProblem(refusals)
        return fresh

    async def _still_in_use(self, fresh: Directory) -> list[str]:
        """One sentence for each system that would be removed or readdressed while it has open requests or reports."""
        changed = changed_systems(self._systems.directory, fresh)
        return [
            f"{kind} {name} still has open requests or reports and may not be removed or readdressed yet;"
            f" see them with: jobnet-broker open {name}"
            for kind, name in sorted(await self._lookups.open_systems())
            if name in changed
        ]
