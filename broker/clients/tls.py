"""TLS and the bearer token of one external system.

TLS 1.2 or later, the peer's certificate and name always checked, our own certificate if one is set. There
is no switch to turn the checks off. Files are read here, and their text never gets into an error.
"""

from __future__ import annotations

import re
import ssl

from config.sources import ConfigProblem
from config.systems import SystemConfig

_TOKEN = re.compile(r"[\x21-\x7e]+")
# Parts of OpenSSL's names for the alerts with which the other side refuses our certificate.
_ABOUT_US = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")


class SetupProblem(Exception):
    """A file of this system cannot be used; `what` is a word for `Seen`."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def tls_context(config: SystemConfig) -> ssl.SSLContext:
    """The TLS settings of one system. Raises SetupProblem; reads files, so keep it off the event loop."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if config.client_cert is not None:
            context.load_cert_chain(config.client_cert, config.client_key, password=_no_password)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise SetupProblem("tls-files") from None
    return context


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal for the password of an encrypted key.
    raise ValueError("the client key is encrypted")


class Bearer:
    """The bearer token from its file, read again whenever the file changes, or from the environment."""

    def __init__(self, config: SystemConfig) -> None:
        self._config = config
        self._read_at: tuple[int, int, int] | None = None
        self._header: str | None = None

    def header(self) -> str | None:
        """The Authorization header, or None if the system wants none. Raises SetupProblem."""
        if self._config.bearer_token_file is None and self._config.bearer_token_env is None:
            return None
        stamp = self._stamp()
        if self._header is None or stamp is None or stamp != self._read_at:
            self._header, self._read_at = f"Bearer {self._read()}", stamp
        return self._header

    def _stamp(self) -> tuple[int, int, int] | None:
        if self._config.bearer_token_file is None:
            return (0, 0, 0)  # a process's environment does not change
        try:
            stat = self._config.bearer_token_file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read(self) -> str:
        try:
            token = self._config.bearer_token() or ""
        except ConfigProblem:
            raise SetupProblem("bearer-token") from None
        if not _TOKEN.fullmatch(token):
            raise SetupProblem("bearer-token")
        return token


def certificate_refused(error: BaseException | None) -> bool:
    """Whether a TLS alert of the other side speaks of our certificate (or of the one that we lack)."""
    seen = 0
    while error is not None and seen < 5:
        reason = getattr(error, "reason", None) or ""  # of an ssl.SSLError
        if "ALERT" in reason and any(word in reason for word in _ABOUT_US):
            return True
        error, seen = error.__cause__, seen + 1
    return False
