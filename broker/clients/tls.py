"""TLS and the bearer token of one external system.

TLS 1.2 or later. The server's certificate and name are always checked; no setting turns that off. A client certificate
is used if one is set. Errors never contain text of the files or of the other side: the words of `tls_problem` only.
"""

from __future__ import annotations

import socket
import ssl

from config.directory import content_hash
from config.sources import ConfigProblem
from config.systems import SystemConfig

# OpenSSL's codes for a server's certificate that is refused (X509_V_ERR_…).
_REFUSALS = {
    9: "certificate-not-yet-valid",
    10: "certificate-expired",
    62: "certificate-wrong-host",
    64: "certificate-wrong-host",
    **dict.fromkeys((2, 18, 19, 20, 21), "certificate-unknown-issuer"),
}
# Parts of OpenSSL's names of the alerts with which a server refuses our certificate; the first that fits.
_CERTIFICATE_ALERTS = {
    "CERTIFICATE_REQUIRED": "client-certificate-wanted",
    "NO_CERTIFICATE": "client-certificate-wanted",
    "CERTIFICATE_EXPIRED": "client-certificate-expired",
    "CERTIFICATE": "client-certificate-refused",
    "UNKNOWN_CA": "client-certificate-refused",
    "ACCESS_DENIED": "client-certificate-refused",
}


class SetupProblem(Exception):
    """A file of this system cannot be used. `what` is a word for `CallFacts`."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def file_problems(config: SystemConfig) -> list[str]:
    """One sentence `key: …` for each TLS file of this system that is there and cannot be used. Reads the files."""
    found = []
    cert, key = config.client_cert, config.client_key
    if config.ca_file is not None and config.ca_file.is_file():
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=config.ca_file)
        except (OSError, ValueError):
            found.append(f"ca_file: {config.ca_file} holds no certificate that can be read")
    if cert is not None and key is not None and cert.is_file() and key.is_file():
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=_no_password)
        except (OSError, ValueError):
            found.append(f"client_cert: {cert} and {key} are no certificate with its unencrypted key, in PEM")
    return found


def tls_context(config: SystemConfig) -> ssl.SSLContext:
    """The TLS context of one system. Raises SetupProblem. Reads files: keep it off the event loop."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if config.client_cert is not None:
            context.load_cert_chain(config.client_cert, config.client_key, password=_no_password)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise SetupProblem("tls-files") from None
    return context


def _no_password() -> str:
    # Without this function OpenSSL asks on the terminal for the password of an encrypted key.
    raise ValueError("the client key is encrypted")


class Bearer:
    """The bearer token, from the environment or from a file that is read again when it changes."""

    def __init__(self, config: SystemConfig) -> None:
        self._config = config
        self._read_version: tuple[int, int, int] | None = None
        self._header: str | None = None

    def header(self) -> str | None:
        """The Authorization header, or None if no token is configured. Raises SetupProblem."""
        if self._config.bearer_token_file is None and self._config.bearer_token_env is None:
            return None
        version = self._file_version()
        if self._header is None or version is None or version != self._read_version:
            self._header, self._read_version = f"Bearer {self._read()}", version
        return self._header

    def _file_version(self) -> tuple[int, int, int] | None:
        if self._config.bearer_token_file is None:
            return (0, 0, 0)  # a process's environment does not change
        try:
            stat = self._config.bearer_token_file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read(self) -> str:
        try:
            return self._config.bearer_token() or ""
        except ConfigProblem:
            raise SetupProblem("bearer-token") from None


def fingerprint(config: SystemConfig) -> tuple[str, ...]:
    """The contents of the system's TLS files, as hashes; "" for a file that is not named or cannot be read."""
    return tuple(content_hash(path) for path in (config.ca_file, config.client_cert, config.client_key))


def certificate_alert(error: BaseException | None) -> str | None:
    """The word for a TLS alert about our certificate, wrong or missing, if `error` has one for its cause."""
    depth = 0
    while error is not None and depth < 5:
        reason = getattr(error, "reason", None) or ""  # an ssl.SSLError has one
        if "ALERT" in reason:
            for part, word in _CERTIFICATE_ALERTS.items():
                if part in reason:
                    return word
        error, depth = error.__cause__, depth + 1
    return None


def tls_problem(error: BaseException | None) -> str:
    """The word for `CallFacts` about a handshake that failed: whose certificate, and why; `tls` for all else."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _REFUSALS.get(error.verify_code, "certificate")
    return certificate_alert(error) or "tls"


def connection_problem(error: OSError) -> str:
    """What failed when a connection was tried, in words for operators, without text from the other side."""
    if isinstance(error, ssl.SSLError):
        return tls_problem(error)
    if isinstance(error, socket.gaierror):
        return "the name cannot be resolved"
    return error.strerror or type(error).__name__
