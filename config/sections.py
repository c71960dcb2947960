"""The sections of the settings as frozen models, each key with its type, bound and default.

Units and reasons are in default.toml; a test keeps its values equal to the defaults here. An unknown key is an error.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretBytes, SecretStr, field_validator

KEY_BYTES = 32

Seconds = Annotated[float, Field(gt=0, le=31 * 86400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Waiting = Annotated[int, Field(ge=0, le=1_000_000)]
ResponseBytes = Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)]
RetryFirst = Annotated[float, Field(ge=1, le=60_000, allow_inf_nan=False)]
QuietMs = Annotated[float, Field(ge=0, le=60_000, allow_inf_nan=False)]
RetryMax = Annotated[float, Field(ge=1, le=600_000, allow_inf_nan=False)]


class Section(BaseModel):
    """A table of the settings file. Frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)


class RabbitmqSettings(Section):
    """The connection to RabbitMQ. `url` is a secret: amqp:// or amqps:// with user and password."""

    url: SecretStr
    heartbeat_seconds: Annotated[int, Field(ge=1, le=300)] = 20
    publish_timeout_seconds: Seconds = 10
    reconnect_min_seconds: Seconds = 0.5
    reconnect_max_seconds: Seconds = 10

    @field_validator("url")
    @classmethod
    def _is_amqp(cls, url: SecretStr) -> SecretStr:
        # RabbitMQ's client takes one host. It would look up "a,b" as a name, and fail only when it connects.
        netloc = url.get_secret_value().partition("://")[2].partition("/")[0]
        host = netloc.rpartition("@")[2]
        if "," in host or " " in host:
            raise ValueError(
                "must name one host; several nodes of RabbitMQ stand behind one name (DNS or a load balancer)"
            )
        _url_of(url, ("amqp", "amqps"))
        if not urlsplit(url.get_secret_value()).hostname:
            raise ValueError("must name a host")
        return url


class QueueSettings(Section):
    """Maximum lengths of the queues, prefetch and maximum size of a message."""

    max_length: Count = 100_000
    dead_max_length: Count = 1_000_000
    queries_prefetch: Annotated[int, Field(ge=1, le=10_000)] = 200
    bookings_prefetch: Annotated[int, Field(ge=1, le=10_000)] = 200
    citizen_reports_prefetch: Annotated[int, Field(ge=1, le=10_000)] = 50
    max_body_bytes: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024)] = 65_536


class LedgerSettings(Section):
    """PostgreSQL. `dsn` is a secret; without one the broker starts its own server in `embedded_directory`."""

    dsn: SecretStr | None = None
    embedded_directory: Path = Path(".local/ledger")
    pool_size: Annotated[int, Field(ge=2, le=100)] = 8
    batch_size: Annotated[int, Field(ge=1, le=5000)] = 200
    batch_linger_ms: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)] = 2
    heartbeat_seconds: Seconds = 3
    owner_dead_after_seconds: Seconds = 15
    statement_timeout_seconds: Seconds = 10

    @field_validator("dsn")
    @classmethod
    def _is_postgresql(cls, dsn: SecretStr | None) -> SecretStr | None:
        # An empty DSN would mean libpq's defaults: the PG… variables, else this machine.
        return None if dsn is None else _url_of(dsn, ("postgresql", "postgres", "postgresql+asyncpg"))


class RequestSettings(Section):
    """How long a citizen waits for an answer, and how much of that time is reserved for sending it."""

    patience_seconds: Seconds = 30
    clock_skew_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 60
    answer_margin_seconds: Seconds = 0.5
    poll_ms: Annotated[float, Field(ge=10, le=10_000, allow_inf_nan=False)] = 100


class HttpSettings(Section):
    """Calls to the external systems; a system in the directory may override each of these."""

    connect_timeout_seconds: Seconds = 2
    total_timeout_seconds: Seconds = 8
    max_response_bytes: ResponseBytes = 1_048_576
    in_flight: Count | None = None
    waiting: Waiting | None = None
    retry_first_ms: RetryFirst = 100
    retry_max_ms: RetryMax = 2000
    breaker_failures: Count = 5
    breaker_open_seconds: Seconds = 10
    absence_proves_after_seconds: Seconds = 600
    quiet_ms: QuietMs = 1000
    echoes_request_id: bool = False


class HttpLimits(HttpSettings):
    """The effective settings for one external system: overrides applied, no value missing."""

    in_flight: Count
    waiting: Waiting


class VerificationSettings(Section):
    """How uncertain bookings are looked up until their result is known."""

    every_seconds: Seconds = 10
    steady_for_seconds: Seconds = 600
    growth: Annotated[float, Field(gt=1, le=10, allow_inf_nan=False)] = 2.0
    longest_pause_seconds: Seconds = 3600
    give_up_after_seconds: Seconds = 259_200
    batch: Annotated[int, Field(ge=1, le=1000)] = 20


class SchedulerSettings(Section):
    """How often the scheduler looks for due work, and how much it takes at once."""

    tick_seconds: Seconds = 1
    batch: Annotated[int, Field(ge=1, le=10_000)] = 100


class StopSettings(Section):
    """How long a stopping process lets running work finish."""

    drain_seconds: Seconds = 25


class WatchdogSettings(Section):
    """When a process detects a lost consumer or a blocked event loop, and when it exits."""

    check_seconds: Seconds = 5
    recover_within_seconds: Seconds = 60
    loop_lag_seconds: Seconds = 5


class AnswerSettings(Section):
    """Allowed destinations of answers: patterns for `reply_to`, with `*` for any characters."""

    allowed_reply_to: Annotated[tuple[str, ...], Field(min_length=1, max_length=50)] = (
        "amq.rabbitmq.reply-to.*",
        "amq.gen-*",
        "jobnet.answers.*",
    )

    @field_validator("allowed_reply_to")
    @classmethod
    def _are_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for number, pattern in enumerate(patterns):
            if not re.fullmatch(r"[A-Za-z0-9._*-]{1,200}", pattern):
                raise ValueError(
                    f"must be queue names of letters, digits and . _ - *: number {number + 1} is not"
                )
        return patterns

    @cached_property
    def _reply_to(self) -> re.Pattern[str]:
        return re.compile("|".join(fnmatch.translate(pattern) for pattern in self.allowed_reply_to))

    def allows(self, reply_to: str | None) -> bool:
        """Whether an answer may be sent to this queue."""
        return self._reply_to.fullmatch(reply_to or "") is not None


def _key(text: object) -> bytes:
    if isinstance(text, SecretBytes):
        return text.get_secret_value()
    try:
        key = base64.b64decode(text.strip(), validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"must be {KEY_BYTES} random bytes in base64 (44 characters)")
    return key


KeyId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Key = Annotated[SecretBytes, BeforeValidator(_key)]


class KeySettings(Section):
    """Keys for sealing personal data and for search tokens: 32 bytes each, masked when printed."""

    sealing: Annotated[dict[KeyId, Key], Field(max_length=50)] = {}
    seal_with: str = ""
    tokens: Annotated[dict[KeyId, Key], Field(max_length=50)] = {}
    token_order: tuple[str, ...] = ()


class LogSettings(Section):
    """Format and level of the log."""

    format: Literal["auto", "json", "pretty"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class DirectorySettings(Section):
    """The file with jobcenters, systems and suppliers; None: not named."""

    file: Path | None = None


def _url_of(url: SecretStr, schemes: tuple[str, ...]) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        good = parts.scheme in schemes and bool(parts.hostname or parts.query)
        _ = parts.port
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"must be a URL that begins with {' or '.join(f'{s}://' for s in schemes)}")
    return url
