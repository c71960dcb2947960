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

from broker.clients.tls import SetupProblem, connection_problem, file_problems, tls_context
from broker.telemetry.log import get_logger
from config.checks import secret_problems
from config.directory import Directory
from config.systems import SystemConfig

log = get_logger("certificates")

HANDSHAKE_S = 5.0
REFUSAL_S = 0.5


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
    except TimeoutError:
        reason = "timeout"
    except SetupProblem as problem:
        reason = problem.what
    except OSError as error:
        reason = connection_problem(error)
    else:
        certificate = writer.get_extra_info("peercert") or {}
        writer.transport.abort()
        expiry = certificate.get("notAfter")
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(expiry), UTC) if expiry else None
    log.warning("certificate-check-failed", system=name, reason=reason)
    return None


def setup_problems(directory: Directory) -> list[str]:
    """One sentence for each secret and each TLS file of the directory that cannot be used. Reads files."""
    found = secret_problems(directory)
    for where, config in _named_systems(directory):
        found += [f"{where}.{sentence}" for sentence in file_problems(config)]
    return found


async def try_connection(config: SystemConfig) -> str | None:
    """Connect to this system's address and shake hands, without a request: None, or what failed.

    Raises nothing for what a network or a server does.
    """
    url = urlsplit(config.base_url)
    try:
        context = await asyncio.to_thread(tls_context, config) if url.scheme == "https" else None
        port = url.port or (443 if context else 80)
        async with asyncio.timeout(HANDSHAKE_S):
            reader, writer = await asyncio.open_connection(url.hostname, port, ssl=context)
        try:
            # With TLS 1.3 a server refuses our certificate after the handshake.
            async with asyncio.timeout(REFUSAL_S):
                await reader.read(1)
        except TimeoutError:
            pass
        finally:
            writer.transport.abort()
    except TimeoutError:
        return f"no connection within {HANDSHAKE_S:.0f} s"
    except SetupProblem as problem:
        return problem.what
    except OSError as error:
        return connection_problem(error)
    return None


def _named_systems(directory: Directory) -> Iterator[tuple[str, SystemConfig]]:
    yield from directory.systems()
    for name, supplier in directory.suppliers.items():
        yield f"suppliers.{name}", supplier


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
