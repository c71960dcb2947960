"""An external system of the directory: address, credentials, and limits that override those of [http].

Secrets stay in files or environment variables and are read when they are needed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from config.sections import (
    Count,
    HttpLimits,
    HttpSettings,
    QuietMs,
    ResponseBytes,
    RetryFirst,
    RetryMax,
    Seconds,
    Section,
    Waiting,
)
from config.settings import Settings
from config.sources import ConfigProblem, read_secret

_TOKEN = re.compile(r"[\x21-\x7e]+")

Title = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\P{Cc}*$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]


class SystemConfig(Section):
    """An external system: address, credentials and its own `http.*` settings (None: the usual value)."""

    base_url: Annotated[str, Field(max_length=500)]
    allow_http: bool = False
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    bearer_token_file: Path | None = None
    bearer_token_env: Variable | None = None
    connect_timeout_seconds: Seconds | None = None
    total_timeout_seconds: Seconds | None = None
    max_response_bytes: ResponseBytes | None = None
    in_flight: Count | None = None
    waiting: Waiting | None = None
    retry_first_ms: RetryFirst | None = None
    retry_max_ms: RetryMax | None = None
    breaker_failures: Count | None = None
    breaker_open_seconds: Seconds | None = None
    absence_proves_after_seconds: Seconds | None = None
    quiet_ms: QuietMs | None = None
    echoes_request_id: bool | None = None

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        return address(url)

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        plain = self.base_url.lower().startswith("http:")
        if plain and not self.allow_http:
            raise ValueError(
                "base_url must be https: CPR numbers are sent to it; allow_http = true allows plain http, for"
                " systems on this machine"
            )
        if plain and (self.ca_file or self.client_cert):
            raise ValueError("ca_file and client_cert do nothing with http; base_url must be https")
        if bool(self.client_cert) != bool(self.client_key):
            raise ValueError("client_cert and client_key must be set together")
        if self.bearer_token_file and self.bearer_token_env:
            raise ValueError("bearer_token_file and bearer_token_env are both set; remove one")
        return self

    @property
    def overrides(self) -> dict[str, Any]:
        """The `http.*` settings that this system overrides."""
        return {
            name: getattr(self, name) for name in HttpSettings.model_fields if getattr(self, name) is not None
        }

    def limits(self, settings: Settings) -> HttpLimits:
        """The effective HTTP settings for this system."""
        return settings.limits(self.overrides)

    def bearer_token(self) -> str | None:
        """The token, read from its file or variable now, because it may have been renewed. Raises ConfigProblem."""
        if self.bearer_token_file:
            where, token = "bearer_token_file", read_secret(self.bearer_token_file, "bearer_token_file")
        elif self.bearer_token_env:
            where, token = "bearer_token_env", os.environ.get(self.bearer_token_env, "")
            if not token:
                raise ConfigProblem([f"bearer_token_env: the variable {self.bearer_token_env} is not set"])
        else:
            return None
        if not _TOKEN.fullmatch(token):
            raise ConfigProblem([f"{where}: a bearer token has printable ASCII characters and no blanks"])
        return token


def address(url: str) -> str:
    """The address without a slash at its end. Raises ValueError if a path cannot be added to it."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("must be a URL, for example https://booking.example/api") from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("must begin with https:// and a host name")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or a password; use a bearer token or a client certificate")
    if "?" in url or "#" in url:
        raise ValueError("must end before any ? or #: nothing but a path is added to it")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("must be of printable ASCII characters without spaces")
    return url.rstrip("/")
