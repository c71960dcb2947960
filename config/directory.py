"""Who has which systems: a jobcenterkode names its Planner, its booking system and its supplier.

Each of those is described once and serves many jobcenters. Names that nothing describes are errors that name
both sides. Reads, checks and writes the file; opens no connection.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from config.dangers import notices, problems
from config.sections import (
    Count,
    HttpLimits,
    HttpSettings,
    ResponseBytes,
    RetryFirst,
    RetryMax,
    Seconds,
    Section,
    Waiting,
)
from config.settings import Settings
from config.sources import ConfigProblem, read_secret, read_toml, sentences

__all__ = [
    "ConfigProblem",
    "Directory",
    "Jobcenter",
    "Supplier",
    "SystemConfig",
    "changed_systems",
    "dump_directory",
    "load_directory",
    "notices",
    "problems",
]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,49}$")]
JobcenterCode = Annotated[str, Field(pattern=r"^[0-9]{5}$")]
Title = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\P{Cc}*$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
FILES = ("ca_file", "client_cert", "client_key", "bearer_token_file")


class SystemConfig(Section):
    """One external system: where it is, how it knows us, its own `http.*` limits (None: the usual ones)."""

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

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        _check_address(url)
        return url.rstrip("/")

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        plain = self.base_url.lower().startswith("http:")
        if plain and not self.allow_http:
            raise ValueError(
                "base_url must be https: CPR numbers travel to it; allow_http = true allows plain http, for"
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
        """The `http.*` settings that this system sets itself."""
        return {
            name: getattr(self, name) for name in HttpSettings.model_fields if getattr(self, name) is not None
        }

    def limits(self, settings: Settings) -> HttpLimits:
        """The HTTP settings in force for this system."""
        return settings.limits(self.overrides)

    def bearer_token(self) -> str | None:
        """The token from its file or variable, read now (it may have been renewed). Raises ConfigProblem."""
        if self.bearer_token_file:
            return read_secret(self.bearer_token_file, "bearer_token_file")
        if self.bearer_token_env is None:
            return None
        token = os.environ.get(self.bearer_token_env, "")
        if not token:
            raise ConfigProblem([f"bearer_token_env: the variable {self.bearer_token_env} is not set"])
        return token


class Jobcenter(Section):
    """One jobcenter and the names of what serves it."""

    name: Title
    planner: str
    booking_system: str
    supplier: str


class Supplier(Section):
    """A supplier of booking systems."""

    name: Title


class Directory(Section):
    """Everything that directory.toml says."""

    planners: dict[Name, SystemConfig]
    booking_systems: dict[Name, SystemConfig]
    suppliers: dict[Name, Supplier]
    jobcenters: Annotated[dict[JobcenterCode, Jobcenter], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _names_only_what_it_describes(self) -> Self:
        unknown = list(_unknown_references(self))
        if unknown:
            raise ValueError("\n".join(unknown))
        return self

    def jobcenter(self, code: str) -> Jobcenter | None:
        """The jobcenter with this jobcenterkode, or None."""
        return self.jobcenters.get(code)

    def systems(self) -> Iterator[tuple[str, SystemConfig]]:
        """Every system with the name of its table: `planners.nord`, `booking_systems.fjord`."""
        for table in ("planners", "booking_systems"):
            for name, system in getattr(self, table).items():
                yield f"{table}.{name}", system


def _unknown_references(directory: Directory) -> Iterator[str]:
    tables: dict[str, tuple[str, Mapping[str, object]]] = {
        "planner": ("planners", directory.planners),
        "booking_system": ("booking_systems", directory.booking_systems),
        "supplier": ("suppliers", directory.suppliers),
    }
    for code, jobcenter in directory.jobcenters.items():
        for key, (table, known) in tables.items():
            name = getattr(jobcenter, key)
            if name not in known:
                yield f"jobcenters.{code}.{key}: names {name!r}, but there is no table [{table}.{name}]"


def _check_address(url: str) -> None:
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


def load_directory(path: Path) -> Directory:
    """One directory file, checked; its relative paths start there. Raises ConfigProblem with all bad keys."""
    try:
        directory = Directory.model_validate(read_toml(path))
    except ValidationError as error:
        raise ConfigProblem(f"{path.name}: {sentence}" for sentence in sentences(error, Directory)) from None
    return directory.model_copy(
        update={
            table: {name: _rooted(system, path.resolve().parent) for name, system in systems.items()}
            for table, systems in (
                ("planners", directory.planners),
                ("booking_systems", directory.booking_systems),
            )
        }
    )


def _rooted(system: SystemConfig, root: Path) -> SystemConfig:
    return system.model_copy(update={key: root / path for key in FILES if (path := getattr(system, key))})


def dump_directory(directory: Directory) -> str:
    """The directory as TOML that `load_directory` reads back to the same (paths as they stand)."""
    tables: list[str] = []
    for table in Directory.model_fields:
        for name, entry in getattr(directory, table).items():
            pairs = entry.model_dump(mode="json", exclude_defaults=True).items()
            lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in pairs)
            tables.append("\n".join((f"[{table}.{name}]", *lines, "")))
    return "\n".join(tables)


def changed_systems(old: Directory, new: Directory) -> set[str]:
    """Names of the systems and suppliers of `old` that `new` removes or readdresses."""
    gone = set(old.suppliers) - set(new.suppliers)
    for before, after in ((old.planners, new.planners), (old.booking_systems, new.booking_systems)):
        gone |= {n for n, s in before.items() if n not in after or after[n].base_url != s.base_url}
    return gone
