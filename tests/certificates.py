"""Certificates made here for tests: an authority of our own, its servers and clients, and one nobody trusts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    """Everything that a test of TLS needs."""

    ca: Path
    server: Pair
    stranger: Pair  # signed by nobody we trust
    elsewhere: Pair  # signed well, for another name
    client: Pair
    expired: Pair  # signed well, for our address, and over
    early: Pair  # the same, and not yet valid
    old_client: Pair  # a client of ours whose certificate is over


class Authority:
    """Signs; `path` is its own certificate."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self.path = folder / f"{name}.pem"
        cert = self._sign(self._name, self._key.public_key(), ca=True)
        self.path.write_bytes(cert.public_bytes(serialization.Encoding.PEM))

    def pair(self, name: str, *addresses: str, from_days: int = -1, to_days: int = 1) -> Pair:
        """A certificate that is valid from and to so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert = self._sign(
            _name(name), key.public_key(), addresses=addresses, from_days=from_days, to_days=to_days
        )
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        pair.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return pair

    def _sign(
        self,
        name: x509.Name,
        key: Any,
        *,
        ca: bool = False,
        addresses: tuple[str, ...] = (),
        from_days: int = -1,
        to_days: int = 1,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=from_days))
            .not_valid_after(now + timedelta(days=to_days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            # Python 3.13 and later ask for these three (RFC 5280).
            .add_extension(_usage(ca=ca), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if addresses:
            names = [x509.IPAddress(ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def made_in(folder: Path) -> Certificates:
    """A set for servers on 127.0.0.1."""
    ours, other = Authority(folder, "ca"), Authority(folder, "other-ca")
    return Certificates(
        ours.path,
        ours.pair("server", "127.0.0.1"),
        other.pair("stranger", "127.0.0.1"),
        ours.pair("elsewhere", "192.0.2.1"),
        ours.pair("client"),
        ours.pair("expired", "127.0.0.1", from_days=-10, to_days=-1),
        ours.pair("early", "127.0.0.1", from_days=1, to_days=10),
        ours.pair("old-client", from_days=-10, to_days=-1),
    )
