"""When certificates end: our own and those that we trust, from the directory's files; those that systems show us.

For the latter a worker shakes hands with each system now and then and sends nothing. Judges nothing.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from broker.clients.tls import SetupProblem, tls_context
from broker.telemetry.log import get_logger
from config.directory import Directory
from config.systems import SystemConfig

log = get_logger("certificates")

HANDSHAKE_S = 5.0


def certificate_ends(directory: Directory) -> dict[tuple[str, str], datetime]:
    """By (system, which): `client` or `ca`. Of several in one file the one that ends first; off the event loop.

    A file that cannot be read is told of and left out: `tls.py` refuses it where it matters.
    """
    found: dict[tuple[str, str], datetime] = {}
    for name, config in _systems(directory):
        for which, file in (("client", config.client_cert), ("ca", config.ca_file)):
            if file is not None and (ends := _first_end(file)) is not None:
                found[(name, which)] = min(ends, found.get((name, which), ends))
    return found


async def certificates_shown(directory: Directory) -> dict[tuple[str, str], datetime]:
    """By (system, `server`). One system after the other; who does not answer, or is refused by us, is left out."""
    found: dict[tuple[str, str], datetime] = {}
    for name, config in _systems(directory):
        if config.base_url.startswith("https:") and (ends := await _shown(name, config)) is not None:
            found[(name, "server")] = min(ends, found.get((name, "server"), ends))
    return found


async def _shown(name: str, config: SystemConfig) -> datetime | None:
    at = urlsplit(config.base_url)
    try:
        context = await asyncio.to_thread(tls_context, config)
        async with asyncio.timeout(HANDSHAKE_S):
            _, writer = await asyncio.open_connection(at.hostname, at.port or 443, ssl=context)
    except (OSError, TimeoutError, SetupProblem) as error:
        log.warning("certificate-not-seen", system=name, reason=type(error).__name__)
        return None
    shown = writer.get_extra_info("peercert") or {}
    writer.transport.abort()
    ends = shown.get("notAfter")
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC) if ends else None


def _systems(directory: Directory) -> Iterator[tuple[str, SystemConfig]]:
    yield from directory.planners.items()
    yield from directory.booking_systems.items()
    yield from directory.suppliers.items()


def _first_end(file: Path) -> datetime | None:
    try:
        return min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(file.read_bytes()))
    except (OSError, ValueError) as error:
        log.warning("certificate-not-read", file=file.name, reason=type(error).__name__)
        return None
