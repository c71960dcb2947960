"""The sections about monitoring: health, metrics and tracing."""

from __future__ import annotations

from datetime import date
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from config.sections import KeyId, Seconds, Section

Port = Annotated[int, Field(ge=0, le=65_000)]
"""0: no server. The maximum leaves room for the ports of further workers."""
Host = Annotated[str, Field(pattern=r"^[0-9A-Za-z.:-]{1,253}$")]


class HealthSettings(Section):
    """Address of a worker's health server, and how often the figures from the ledger are read."""

    host: Host = "127.0.0.1"
    port: Port = 9650
    figures_every_seconds: Seconds = 15
    key_expiry: Annotated[dict[KeyId, date], Field(max_length=100)] = Field(default_factory=dict)


class TracingSettings(Section):
    """Collector, share and queue of the spans. Without an endpoint tracing is off."""

    endpoint: Annotated[str, Field(max_length=500)] = ""
    ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1
    queue_size: Annotated[int, Field(ge=512, le=100_000)] = 4096

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, endpoint: str) -> str:
        if not endpoint:
            return endpoint
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("must be a URL, for example http://127.0.0.1:4318/v1/traces, without a password")
        return endpoint
