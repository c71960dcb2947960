"""What `config check` prints beside the problems: which files were read, and which servers can be reached."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path

from broker.clients.certificates import try_connection
from broker.errors import BrokerError
from broker.ledger.ledger import Ledger
from broker.rabbitmq import temporary_connection
from config.directory import Directory
from config.settings import DEFAULTS, Settings
from config.sources import PREFIX

TRY_S = 15.0
"""Longest duration of one try."""
TRIES_AT_ONCE = 20


def sources(settings_file: Path | None, settings: Settings) -> Iterator[str]:
    """One line for each source of the configuration. Names only: of variables no value but that of a file's name."""
    yield f"settings: {settings_file.resolve() if settings_file else 'no file named'}, over {DEFAULTS}"
    for name in sorted(name for name in os.environ if name.startswith(PREFIX)):
        file = f" = {os.environ[name]}" if name.upper().endswith("_FILE") else ""
        yield f"environment: {name}{file}"
    yield f"directory: {settings.directory.file or 'no file named'}"
    if settings.ledger.dsn is None:
        place = settings.ledger.embedded_directory.resolve()
        yield f"ledger: ledger.dsn is not set: the broker starts its own PostgreSQL in {place}"


async def tried(settings: Settings, directory: Directory) -> AsyncIterator[tuple[str, str | None]]:
    """Each server, and None if it was reached, else what failed. Each is tried once, within TRY_S, side by side."""
    places = asyncio.Semaphore(TRIES_AT_ONCE)

    async def bounded(trying: Awaitable[str | None]) -> str | None:
        async with places:
            try:
                async with asyncio.timeout(TRY_S):
                    return await trying
            except TimeoutError:
                return f"no answer within {TRY_S:.0f} s"

    tries = {"RabbitMQ": _rabbitmq(settings)}
    if settings.ledger.dsn is not None:
        tries["PostgreSQL"] = _postgresql(settings)
    tries |= {where: try_connection(config) for where, config in directory.systems()}
    tries |= {
        f"suppliers.{name}": try_connection(supplier)
        for name, supplier in directory.suppliers.items()
        if supplier.has_address
    }
    tasks = {name: asyncio.create_task(bounded(trying)) for name, trying in tries.items()}
    for name, task in tasks.items():
        yield name, await task


async def _rabbitmq(settings: Settings) -> str | None:
    try:
        async with temporary_connection(
            settings.rabbitmq.url.get_secret_value(), "jobnet-broker config check"
        ):
            return None
    except BrokerError as error:
        return str(error)


async def _postgresql(settings: Settings) -> str | None:
    try:
        async with Ledger.reading(settings):
            return None
    except BrokerError as error:
        return str(error)
