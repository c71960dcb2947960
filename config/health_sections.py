"""The sections about watching the broker: health, metrics and tracing, as `sections.py` has the others."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field

from config.sections import KeyId, Seconds, Section

Port = Annotated[int, Field(ge=0, le=65_000)]
"""0 is none; above it there is room for the ports of the other workers."""
Host = Annotated[str, Field(pattern=r"^[0-9A-Za-z.:-]{1,253}$")]


class HealthSettings(Section):
    """Where a worker says how it is, and how often it reads the figures that cost something."""

    host: Host = "127.0.0.1"
    port: Port = 9650
    figures_every_seconds: Seconds = 15
    key_expiry: Annotated[dict[KeyId, date], Field(max_length=100)] = Field(default_factory=dict)
