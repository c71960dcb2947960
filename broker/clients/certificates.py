"""When the certificates end that the directory names: our own, and those that we trust. Reads files, judges nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cryptography import x509

from broker.log import get_logger
from config.directory import Directory, SystemConfig

log = get_logger("certificates")


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
