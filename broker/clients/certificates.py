"""When certificates expire: client and CA certificates in the directory's files, and the servers' certificates.

For a server's certificate a worker makes a TLS handshake now and then and sends no request.
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
    """Expiry by (system, `client` or `ca`); the earliest of several in one file. Reads files: keep it off the loop.

    A file that cannot be read is logged and left out.
    """
    # tls.py reports an unreadable file when a call needs it.
    found: dict[tuple[str, str], datetime] = {}
    for name, config in _systems(directory):
        for which, file in (("client", config.client_cert), ("ca", config.ca_file)):
            if file is not None and (expiry := _earliest_expiry(file)) is not None:
                found[(name, which)] = min(expiry, found.get((name, which), expiry))
    return found


async def certificates_shown(directory: Directory) -> dict[tuple[str, str], datetime]:
    """Expiry by (system, `server`), asked one after the other. A system whose handshake fails is left out."""
    found: dict[tuple[str, str], datetime] = {}
    for name, config in _systems(directory):
        if (
            config.base_url.startswith("https:")
            and (expiry := await _server_expiry(name, config)) is not None
        ):
            found[(name, "server")] = min(expiry, found.get((name, "server"), expiry))
    return found


async def _server_expiry(name: str, config: SystemConfig) -> datetime | None:
    url = urlsplit(config.base_url)
    try:
        context = await asyncio.to_thread(tls_context, config)
        async with asyncio.timeout(HANDSHAKE_S):
            _, writer = await asyncio.open_connection(url.hostname, url.port or 443, ssl=context)
    except (OSError, TimeoutError, SetupProblem) as error:
        log.warning("certificate-check-failed", system=name, reason=type(error).__name__)
        return None
    certificate = writer.get_extra_info("peercert") or {}
    writer.transport.abort()
    expiry = certificate.get("notAfter")
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(expiry), UTC) if expiry else None


def _systems(directory: Directory) -> Iterator[tuple[str, SystemConfig]]:
    yield from directory.planners.items()
    yield from directory.booking_systems.items()
    yield from directory.suppliers.items()


def _earliest_expiry(file: Path) -> datetime | None:
    try:
        return min(cert.not_valid_after_utc for cert in x509.load_pem_x509_certificates(file.read_bytes()))
    except (OSError, ValueError) as error:
        log.warning("certificate-file-unreadable", file=file.name, reason=type(error).__name__)
        return None
