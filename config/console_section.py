"""The section `console`: address of the operators' web pages, users with their roles, sessions and logins."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator

from config.sections import Seconds, Section

Role = Literal["viewer", "operator", "privacy", "admin"]
UserName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._@-]{0,99}$")]

LEAST_MEMORY_KIB, MOST_MEMORY_KIB = 19_456, 1_048_576
"""Memory of a password hash. With less, guessing is too fast; with more, a few logins could fill the memory."""

_HASH = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,8}),t=\d{1,3},p=\d{1,3}\$[A-Za-z0-9+/]{11,88}\$[A-Za-z0-9+/]{22,88}"
)


class ConsoleUser(Section):
    """A user of the console. Without a password hash the user can only log in through a trusted header."""

    roles: Annotated[tuple[Role, ...], Field(min_length=1, max_length=4)]
    password_hash: SecretStr | None = None

    @field_validator("password_hash")
    @classmethod
    def _is_argon2id(cls, given: SecretStr | None) -> SecretStr | None:
        match = _HASH.fullmatch(given.get_secret_value()) if given else None
        if given and not (match and LEAST_MEMORY_KIB <= int(match[1]) <= MOST_MEMORY_KIB):
            raise ValueError("must be an argon2id hash; `jobnet-broker console hash` makes one")
        return given


class ConsoleSettings(Section):
    """The operators' console: address, users, sessions, and limits on logins and live pages."""

    host: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9.:-]+$")] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8025
    url: Annotated[str, Field(max_length=200)] = ""
    users: Annotated[dict[UserName, ConsoleUser], Field(max_length=500)] = Field(default_factory=dict)
    trusted_header: Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9-]*$")] = ""
    trusted_proxies: Annotated[tuple[str, ...], Field(max_length=50)] = ()
    session_idle_seconds: Seconds = 1200
    session_most_seconds: Seconds = 36_000
    sessions_most: Annotated[int, Field(ge=1, le=10_000)] = 200
    login_attempts: Annotated[int, Field(ge=1, le=1000)] = 10
    login_window_seconds: Seconds = 600
    link_seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 300
    live_every_seconds: Seconds = 3
    listeners_most: Annotated[int, Field(ge=1, le=10_000)] = 100

    @field_validator("url")
    @classmethod
    def _is_an_origin(cls, url: str) -> str:
        if not url:
            return url
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            raise ValueError("must be a URL, for example https://console.example") from None
        plain = parts.scheme == "http" and parts.hostname and _loopback(parts.hostname)
        if not parts.hostname or not (parts.scheme == "https" or plain):
            raise ValueError(
                "must begin with https:// (http:// only for this machine): passwords travel there"
            )
        if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("must be a scheme, a host and perhaps a port, and nothing else")
        return url.rstrip("/").lower()

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for number, text in enumerate(networks):
            try:
                ipaddress.ip_network(text)
            except ValueError:
                raise ValueError(f"must be IP addresses or networks: number {number + 1} is not") from None
        return networks

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if not _loopback(self.host) and not self.url:
            raise ValueError(
                "url must be the address that browsers use when host is not this machine: the console itself"
                " speaks plain http, to a reverse proxy or a container's port in front of it"
            )
        if bool(self.trusted_header) != bool(self.trusted_proxies):
            raise ValueError("trusted_header and trusted_proxies must be set together")
        if self.session_idle_seconds > self.session_most_seconds:
            raise ValueError("session_idle_seconds must not be longer than session_most_seconds")
        return self

    @property
    def origin(self) -> str:
        """The origin that browsers see: scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.url or f"http://{host}:{self.port}"


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
